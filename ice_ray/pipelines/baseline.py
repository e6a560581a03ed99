"""The baseline of the paper's tables: one epoch of fine-tuning after every pruning step, whatever the drop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Self

from ice_ray.engine.actions import FineTune
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters, searched
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.layerwise import RepairingConfig, choose_removal, removal_action
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.rounds import Removal, accuracy_before, round_record
from ice_ray.training.config import StepFineTuneConfig


@dataclass(frozen=True)
class BaselineConfig(RepairingConfig):
    """The baseline's options."""

    fine_tune: StepFineTuneConfig = field(default_factory=StepFineTuneConfig)

    def for_replay(self) -> Self:
        return dataclasses.replace(self, fine_tune=self.fine_tune.for_replay())


@dataclass(frozen=True)
class BaselineHyperparameters(Hyperparameters):
    """The baseline's.

    Attributes:
        learning_rate: of every fine-tune. Above 0.
    """

    learning_rate: float = searched("LR", logarithmic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True, kw_only=True)
class BaselinePipeline(Pipeline):
    """Removals as ICE's; nothing frozen, no threshold, a rate of its own. It measures once a step, after the fine-tune:
    it has no question to ask before.
    """

    Config = BaselineConfig
    Hyperparameters = BaselineHyperparameters
    search_share = 0.02

    config: BaselineConfig = field(default_factory=BaselineConfig)
    hyperparameters: BaselineHyperparameters

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        step, *later = executor.network.steps[len(state.records) :]
        removed, scored = choose_removal(executor, state.snapshot, step.number, self.config)
        pruned = executor.run(state.snapshot, removal_action(removed, step.number, self.config, not later))
        costs = (Cost(), pruned.cost) if self.config.repair != "none" else (pruned.cost, Cost())
        removal = Removal(pruned.snapshot, sum(len(filters) for _, filters in removed), scored.cost, *costs)
        record, after = round_record(
            executor,
            preparation,
            step.number,
            accuracy_before(state, preparation),
            step.name,
            removal,
            self.fine_tune_after(step.number),
        )
        return PipelineState(after, (*state.records, record))

    def fine_tune_after(self, step: int) -> FineTune | None:
        """The fine-tune that follows a step, by its number from 1; None for none."""
        plan, rate = self.config.fine_tune, self.hyperparameters.learning_rate
        return FineTune(("step", step), rate, plan.epochs, plan.schedule, frozen=())
