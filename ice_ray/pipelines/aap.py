"""Automatic Attention Pruning (Zhao et al. 2023): one threshold for all layers, raised and lowered by a controller."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from ice_ray.engine.actions import FineTune, LayerShares, Score, SnapshotId, UnprunedShare
from ice_ray.engine.executor import Executor
from ice_ray.errors import require
from ice_ray.hyperparameters import Hyperparameters, searched
from ice_ray.models.units import PrunableUnit
from ice_ray.pipelines.aap_controller import Controller, RoundResult
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.rounds import Removal, filters_at, position_scores, remove, round_record, unchanged
from ice_ray.training.config import StepFineTuneConfig

if TYPE_CHECKING:
    from torch import Tensor

Target = Literal["accuracy-parameters", "accuracy", "parameters", "flops"]


@dataclass(frozen=True)
class AapHyperparameters(Hyperparameters):
    """AAP's (the paper's symbols in parentheses).

    Attributes:
        threshold_step: (lambda_0) by which the threshold rises after a round that is accepted. Above 0.
        accuracy_budget: points of accuracy that may be lost. At least 0.
        learning_rate: of every round's training. Above 0.
    """

    threshold_step: float = searched("lambda", logarithmic=True)
    accuracy_budget: float = searched("budget")
    learning_rate: float = searched("LR", logarithmic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("threshold_step", self.threshold_step > 0, "above 0")
        self._check("accuracy_budget", self.accuracy_budget >= 0, "at least 0 (percentage points)")
        self._check("learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True)
class AapOptions:
    """The aap pipeline; its ratio is the most that may go."""

    target: Target = "accuracy-parameters"
    """A round stands while all of these hold: accuracy = the drop is within the budget; parameters, flops = no larger
    share of them than --ratio is gone."""
    rounds: int = 30
    """Rounds at most, those that are rolled back included."""
    images: int = 128
    """Training images whose activations are looked at, the same in every round."""

    def __post_init__(self) -> None:
        require(self, "rounds", self.rounds >= 1, "must be at least 1")
        require(self, "images", self.images >= 1, "must be at least 1")


@dataclass(frozen=True)
class AapConfig(PipelineConfig):
    """AAP's options."""

    aap: AapOptions = field(default_factory=AapOptions)
    fine_tune: StepFineTuneConfig = field(default_factory=StepFineTuneConfig)

    def for_replay(self) -> Self:
        return dataclasses.replace(self, fine_tune=self.fine_tune.for_replay())


@dataclass(frozen=True, kw_only=True)
class AapPipeline(Pipeline):
    """Rounds of removal and one training each, until the controller has nothing left to try.

    A filter's attention is the mean over images and positions of its activation map (p = 1). In a layer filters go
    whose attention is at most T_l = T x (the layer's share of the weights, or of the multiply-adds); one always stays.
    They are removed for real in every round, where the published program masks until the end: its rounds cost as much
    as the dense network's. The result is the accepted round that took most; where it is not the last one, a record
    without cost says so.
    """

    Config = AapConfig
    Hyperparameters = AapHyperparameters
    takes_target = False
    search_share = 0.02

    config: AapConfig = field(default_factory=AapConfig)
    hyperparameters: AapHyperparameters

    def begin(self, executor: Executor) -> PipelineState:
        return PipelineState(executor.root, memory={"controller": None, "best": None, "closed": False})

    def length(self, steps: int) -> int:
        return self.config.aap.rounds

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        return bool(state.memory["closed"])

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        controller, best = self._controller(executor, state, preparation), state.memory["best"]
        if self._has_ended(controller, len(state.records)):
            return self._closed(state, preparation, executor.root)
        number = len(state.records) + 1
        removal = self._remove(executor, controller)
        plan = self.config.fine_tune
        fine_tune = FineTune(
            ("round", number), self.hyperparameters.learning_rate, plan.epochs, plan.schedule, frozen=()
        )
        name = f"all layers, threshold {controller.threshold:g}"
        record, after = round_record(executor, preparation, number, controller.start.accuracy, name, removal, fine_tune)
        taken = 1 - executor.run(after, UnprunedShare(self._counting)).value
        accepted = self._meets_targets(record.drop, taken)
        record = dataclasses.replace(record, accepted=accepted)
        if accepted:
            controller = controller.accept(RoundResult(after, record.accuracy))
            if best is None or taken >= best["taken"]:
                best = {"snapshot": after, "taken": taken, "round": number}
        else:
            controller = controller.reject()
        closed = self._has_ended(controller, number) and best is not None and best["snapshot"] == after
        wanted = [entry.result.snapshot for entry in controller.stack]
        wanted += [controller.start.snapshot, best["snapshot"] if best else executor.root]
        kept = () if closed else tuple(dict.fromkeys(each for each in wanted if each != executor.root))
        memory = {"controller": controller.as_json(), "best": best, "closed": closed}
        return PipelineState(after, (*state.records, record), memory=memory, kept=kept)

    def _controller(self, executor: Executor, state: PipelineState, preparation: Preparation) -> Controller:
        if state.memory["controller"] is not None:
            return Controller.from_json(state.memory["controller"])
        dense = RoundResult(executor.root, preparation.original_accuracy)
        return Controller(0.0, self.hyperparameters.threshold_step, dense)

    def _has_ended(self, controller: Controller, rounds: int) -> bool:
        return controller.stopped or rounds >= self.config.aap.rounds

    def _closed(self, state: PipelineState, preparation: Preparation, root: SnapshotId) -> PipelineState:
        """A record, without cost, of what the rounds have come to, where the last of them does not stand."""
        best, number = state.memory["best"], len(state.records) + 1
        stands = state.records[best["round"] - 1] if best else None
        accuracy = stands.accuracy if stands else preparation.original_accuracy
        record = unchanged(
            number,
            f"round {stands.step} stands" if stands else "no round stands",
            stands.unpruned_share if stands else 1.0,
            accuracy,
            preparation,
        )
        memory = {**state.memory, "closed": True}
        return PipelineState(best["snapshot"] if best else root, (*state.records, record), memory=memory)

    @property
    def _counting(self) -> Literal["multiply-adds", "parameters"]:
        return "multiply-adds" if self.config.aap.target == "flops" else "parameters"

    def _meets_targets(self, drop: float, taken: float) -> bool:
        within_budget = drop <= self.hyperparameters.accuracy_budget
        within_ratio = taken <= self.config.ratio
        match self.config.aap.target:
            case "accuracy":
                return within_budget
            case "parameters" | "flops":
                return within_ratio
            case "accuracy-parameters":
                return within_budget and within_ratio

    def _remove(self, executor: Executor, controller: Controller) -> Removal:
        start = controller.start.snapshot
        scored = executor.run(start, Score(0, "mean-activation", self.config.aap.images))
        shares = executor.run(start, LayerShares("multiply-adds" if self.config.aap.target == "flops" else "weights"))
        gone = {
            unit.layer: _unattended(unit, scored.value[unit.layer], controller.threshold * shares.value[unit.layer])
            for unit in executor.network.units
        }
        return remove(executor, start, gone, scored.cost)


def _unattended(unit: PrunableUnit, scores: Tensor, threshold: float) -> tuple[int, ...]:
    """The filters of attention at most `threshold`, but for the best one."""
    attention = position_scores(unit, scores)
    positions = [position for position, value in enumerate(attention.tolist()) if value <= threshold]
    if len(positions) == len(attention):
        positions.remove(int(attention.argmax()))
    return filters_at(unit, positions, len(scores))
