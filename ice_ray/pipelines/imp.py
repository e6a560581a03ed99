"""Iterative magnitude pruning: in phases, the smallest first over all layers together, retraining after each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ice_ray.engine.actions import Counting, FineTune, Mask, Reinitialise, Score, SnapshotId, UnprunedShare, WeightNorm
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters, searched
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.rounds import Removal, accuracy_before, filters_at, position_scores, remove, round_record
from ice_ray.pruning.amounts import removed_count
from ice_ray.training.schedules.retraining import DenseSchedule, Retraining, parse_milestones, retraining_plan


@dataclass(frozen=True)
class ImpHyperparameters(Hyperparameters):
    """IMP's.

    Attributes:
        phases: (J) removals, each followed by a retraining; 1 is one-shot pruning. Whole, at least 1.
        epochs: of each retraining; a part of one will do. Above 0.
        learning_rate: (eta_max) the greatest of the dense training. Above 0.
    """

    phases: float = searched("J", whole=True)
    epochs: float = searched("epochs")
    learning_rate: float = searched("LR", logarithmic=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("phases", self.phases >= 1 and self.phases == int(self.phases), "a whole number, at least 1")
        self._check("epochs", self.epochs > 0, "above 0")
        self._check("learning_rate", self.learning_rate > 0, "above 0")


@dataclass(frozen=True)
class BimpHyperparameters(ImpHyperparameters):
    """Budgeted IMP's: the dense training too has its price.

    Attributes:
        dense_epochs: of the training that comes first, linear from the greatest rate to 0. Above 0.
    """

    dense_epochs: float = searched("dense epochs")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("dense_epochs", self.dense_epochs > 0, "above 0")


@dataclass(frozen=True)
class ImpOptions:
    """The imp and bimp pipelines; their ratio is the share that goes over all layers together."""

    form: Literal["structured", "unstructured"] = "structured"
    """structured = filters of the smallest root mean square go for real; unstructured = the smallest weights become
    zero, as published: the model grows no smaller."""
    schedule: Retraining = "llr"
    """Of the retraining: ft, lrw, slr, clr, llr or allr."""
    dense_schedule: str = "0:1,0.5:0.1,0.75:0.01"
    """How the dense model was trained, for the schedules that go by it: PLACE:SHARE of the greatest rate from there."""
    dense_epochs: float = 160.0
    """Epochs that it was trained for."""

    def __post_init__(self) -> None:
        DenseSchedule(self.dense_epochs, parse_milestones(self.dense_schedule))

    @property
    def dense(self) -> DenseSchedule:
        """The dense model's training."""
        return DenseSchedule(self.dense_epochs, parse_milestones(self.dense_schedule))


@dataclass(frozen=True)
class ImpConfig(PipelineConfig):
    """IMP's options."""

    imp: ImpOptions = field(default_factory=ImpOptions)


@dataclass(frozen=True, kw_only=True)
class ImpPipeline(Pipeline):
    """J phases, each taking q = 1 - (1-S)^(1/J) of what remains (Han et al. 2015; Renda et al. 2020).

    S, the ratio, is the share that is gone at the end: of the prunable layers' filters, or of all weights.
    """

    Config = ImpConfig
    Hyperparameters = ImpHyperparameters
    takes_target = False

    config: ImpConfig = field(default_factory=ImpConfig)
    hyperparameters: ImpHyperparameters

    def length(self, steps: int) -> int:
        return self._rounds_before + int(self.hyperparameters.phases)

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        return len(state.records) - self._rounds_before >= int(self.hyperparameters.phases)

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        if len(state.records) < self._rounds_before:
            return self._train_dense(executor, state, preparation)
        phase = len(state.records) - self._rounds_before + 1
        counting: Counting = "parameters" if self.config.imp.form == "structured" else "non-zero-parameters"
        before = executor.run(state.snapshot, WeightNorm()).value
        had = executor.run(state.snapshot, UnprunedShare(counting)).value
        take = self._filters_gone if self.config.imp.form == "structured" else self._masked
        removal = take(executor, state.snapshot, phase)
        after = executor.run(removal.snapshot, WeightNorm()).value
        lost = max(0.0, 1 - (after / before) ** 2) ** 0.5  # what is gone and what is left are orthogonal
        pruned = 1 - executor.run(removal.snapshot, UnprunedShare(counting)).value / had
        fine_tune = self._fine_tune(phase, lost, pruned)
        name = f"all layers, phase {phase}/{int(self.hyperparameters.phases)}"
        number, began = len(state.records) + 1, accuracy_before(state, preparation)
        record, snapshot = round_record(executor, preparation, number, began, name, removal, fine_tune)
        return PipelineState(snapshot, (*state.records, record))

    def retraining(self) -> FineTune:
        own = super().retraining()
        return replace(own, taught=not self._rounds_before, sparse=self.config.imp.form == "unstructured")

    def gone_after(self, phase: int) -> float:
        """Share that is gone after a phase, of 0 to J."""
        phases = int(self.hyperparameters.phases)
        return self.config.ratio if phase == phases else 1 - (1 - self.config.ratio) ** (phase / phases)

    @property
    def _rounds_before(self) -> int:
        """Records before the first phase."""
        return int(isinstance(self.hyperparameters, BimpHyperparameters))

    def _fine_tune(self, phase: int, lost: float, pruned: float) -> FineTune:
        """The retraining after a phase that took shares `lost` of the weights' norm and `pruned` of their number."""
        epochs = self.hyperparameters.epochs
        plan = retraining_plan(self.config.imp.schedule, self.config.imp.dense, epochs, lost, max(pruned, 1e-9))
        return FineTune(
            ("phase", phase),
            self.hyperparameters.learning_rate * plan.rate,
            epochs,
            plan.schedule,
            frozen=(),
            taught=not self._rounds_before,
            sparse=self.config.imp.form == "unstructured",
        )

    def _train_dense(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """From nothing, without the trained model's help: that is what the budget is for."""
        own = self.hyperparameters
        assert isinstance(own, BimpHyperparameters)
        fresh = executor.run(state.snapshot, Reinitialise(("dense",)))
        fine_tune = FineTune(("dense",), own.learning_rate, own.dense_epochs, "linear", frozen=(), taught=False)
        removal = Removal(fresh.snapshot, 0)
        began = accuracy_before(state, preparation)
        record, snapshot = round_record(executor, preparation, 1, began, "dense training", removal, fine_tune)
        return PipelineState(snapshot, (record,))

    def _masked(self, executor: Executor, snapshot: SnapshotId, phase: int) -> Removal:
        masked = executor.run(snapshot, Mask(self.gone_after(phase)))
        return Removal(masked.snapshot, 0, Cost(), masked.cost)

    def _filters_gone(self, executor: Executor, snapshot: SnapshotId, phase: int) -> Removal:
        """The filters of the smallest root mean square over all layers; a layer's best always stays."""
        scored = executor.run(snapshot, Score(0, "l2-fan-in"))
        units = executor.network.units
        scores = [position_scores(unit, scored.value[unit.layer]) for unit in units]
        left = sum(len(scored.value[unit.layer]) for unit in units)
        dense = sum(unit.filters for unit in units)
        to_go = left - (dense - removed_count(self.gone_after(phase), dense))
        ranked = sorted(
            (float(value), number, position) for number, own in enumerate(scores) for position, value in enumerate(own)
        )
        chosen: list[list[int]] = [[] for _ in units]
        for _, number, position in ranked:
            if to_go >= units[number].groups and len(chosen[number]) < len(scores[number]) - 1:
                chosen[number].append(position)
                to_go -= units[number].groups
        gone = {
            unit.layer: filters_at(unit, positions, len(scored.value[unit.layer]))
            for unit, positions in zip(units, chosen, strict=True)
        }
        return remove(executor, snapshot, gone, scored.cost)


@dataclass(frozen=True, kw_only=True)
class BimpPipeline(ImpPipeline):
    """Budgeted IMP: the same behind a dense training that is a part of PT (Zimmer et al. 2022)."""

    Hyperparameters = BimpHyperparameters
    trains_anew = True
