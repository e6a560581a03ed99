"""One-shot pruning: every layer loses its filters at once, then the network is retrained."""

from __future__ import annotations

from dataclasses import dataclass, field

from ice_ray.engine.actions import Score
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.layerwise import LayerwiseConfig
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.rounds import accuracy_before, remove, round_record
from ice_ray.pruning.selection import lowest


@dataclass(frozen=True)
class OneShotHyperparameters(Hyperparameters):
    """Those of the retraining alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("final_epochs", self.final_epochs > 0, "above 0: one-shot pruning is followed by a retraining")


@dataclass(frozen=True, kw_only=True)
class OneShotPipeline(Pipeline):
    """One record for the removal, all chosen on the dense network, one for the retraining (LLR: Zimmer et al. 2022)."""

    Config = LayerwiseConfig
    Hyperparameters = OneShotHyperparameters

    config: LayerwiseConfig = field(default_factory=LayerwiseConfig)
    hyperparameters: OneShotHyperparameters

    def length(self, steps: int) -> int:
        return 1

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        return bool(state.records)

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        scored = executor.run(state.snapshot, Score(0, self.config.criterion, self.config.calibration_images))
        amounts = executor.network.amounts or self.config.amounts
        gone = {
            unit.layer: lowest(scored.value[unit.layer], amounts.removed_now(unit), unit.groups)
            for unit in executor.network.units
        }
        removal = remove(executor, state.snapshot, gone, scored.cost)
        record, after = round_record(
            executor, preparation, 1, accuracy_before(state, preparation), "all layers", removal, None
        )
        return PipelineState(after, (*state.records, record))
