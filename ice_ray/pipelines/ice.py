"""ICE-Pruning: remove, repair, and fine-tune only after the steps that need it (Algorithm 2)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from ice_ray.engine.actions import (
    CompareWeights,
    Counting,
    EarlyStopping,
    FineTune,
    Measure,
    Measured,
    Prune,
    UnprunedShare,
)
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.engine.threshold import Threshold
from ice_ray.errors import UserError, require
from ice_ray.hyperparameters import NEVER, IceHyperparameters
from ice_ray.pipelines.base import FinalConfig, Pipeline
from ice_ray.pipelines.layerwise import RepairingConfig, choose_removal, removal_action
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.pipelines.rounds import Removal, accuracy_before, unchanged, with_accuracy, with_fine_tune, with_removal
from ice_ray.pruning.freezing import WeightChange, frozen_layers, rank_by_change
from ice_ray.repair.config import RepairKind
from ice_ray.training.config import StepFineTuneConfig
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate, on_logarithmic_grid

if TYPE_CHECKING:
    from ice_ray.engine.torch_executor import TorchExecutor

_SHOWN_IMAGES = 250
"""Validation images that show a person what a step has done where no decision asks: enough for a curve."""


@dataclass(frozen=True)
class FreezeConfig:
    """How the layers to hold fixed are found."""

    change: WeightChange = "l1"
    """How weight change is measured: l1 (the paper's text), l2 or norm-difference (the authors' program)."""
    probe_learning_rate: float = 1e-3
    """Learning rate of the one epoch that shows which layers change; eq. 1 has no part in it."""
    stem: bool = False
    """Hold fixed, too, what lies below the lowest layer that is left to train (stem and shortcuts, which else always
    train), so that the backward pass ends there."""

    def __post_init__(self) -> None:
        require(self, "probe_learning_rate", 0 < self.probe_learning_rate < math.inf, "must be above 0")


@dataclass(frozen=True)
class EarlyStoppingConfig:
    """Looks at the drop inside a fine-tune, which end it once it has recovered; the paper has none."""

    every: int | None = None
    """Look every so many SGD steps. [default: never]"""
    images: int = 500
    """Validation images of such a look."""
    margin: float = 0.5
    """Points by which the drop on them must be below theta."""

    def __post_init__(self) -> None:
        require(self, "every", self.every is None or self.every >= 1, "must be at least 1")
        require(self, "images", self.images >= 1, "must be at least 1")

    @property
    def asked(self) -> EarlyStopping | None:
        """As a fine-tune is told of them."""
        return None if self.every is None else EarlyStopping(self.every, self.images, self.margin)


@dataclass(frozen=True)
class IceConfig(RepairingConfig):
    """ICE-Pruning's options; `--preset paper-*` has the paper's."""

    criterion: str = "residual"
    """Which filters go first: l1 (the paper), l2, bn-scale, taylor, mean-activation, entropy, entropy-densities (the
    authors'), l2-fan-in, residual (what least squares cannot make up for stays), random, or package.module:Class."""
    calibration_images: int = 2000
    """Training images that criteria which look at activations, and repairs, look at."""
    repair: RepairKind = "reconstruction"
    """Repair after every removal, without labels: none (the paper); bn = batch-norm statistics estimated anew;
    least-squares = the layers around refitted, so that the sums behind are those of the dense model; reconstruction =
    these layers then trained by themselves towards the same."""
    threshold: bool = True
    """Whether ice fine-tunes only where the drop has reached theta; without, after every step."""
    freezing: bool = True
    """Whether ice holds layers fixed."""
    scheduler: bool = True
    """Whether ice bounds its rates by eq. 1; without, they are LR_base."""
    decision_error: float = 0.01
    """How probable a wrong answer to theta's question may be, for looking at fewer images; 0 = exact (the paper)."""
    alpha: Counting = "parameters"
    """What eq. 1's alpha counts: parameters, or conv-weights as the authors' program does."""
    lr_tolerance: float = 1e-3
    """Step of the logarithmic grid that eq. 1's learning rates are rounded to (1e-3 = 0.1%); 0 rounds nothing."""
    fine_tune: StepFineTuneConfig = field(default_factory=StepFineTuneConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    final: FinalConfig = field(default_factory=FinalConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "decision_error", 0 <= self.decision_error < 0.5, "must be in [0, 0.5)")
        require(self, "lr_tolerance", 0 <= self.lr_tolerance <= 1, "must be in [0, 1]")

    @property
    def idle_hyperparameters(self) -> tuple[str, ...]:
        idle: tuple[str, ...] = () if self.threshold else ("accuracy_drop_threshold",)
        idle += () if self.freezing else ("frozen_fraction",)
        return idle + (() if self.scheduler else ("learning_rate_reduction", "midpoint_pruned_share", "steepness"))

    @property
    def freezes(self) -> bool:
        return self.freezing

    @property
    def final_training(self) -> FinalConfig:
        return self.final

    def for_replay(self) -> Self:
        return dataclasses.replace(self, fine_tune=self.fine_tune.for_replay())


@dataclass(frozen=True, kw_only=True)
class IcePipeline(Pipeline):
    """The pruning-fine-tuning operator of the paper, with a repair as a part of every step."""

    Config = IceConfig
    Hyperparameters = IceHyperparameters

    config: IceConfig = field(default_factory=IceConfig)
    hyperparameters: IceHyperparameters

    def __post_init__(self) -> None:
        if not self.config.threshold and self.hyperparameters.accuracy_drop_threshold == NEVER:
            raise UserError("without the threshold every step is fine-tuned: theta cannot be never")
        if self.config.final.epochs and self.config.final.rate is None and not self.hyperparameters.base_learning_rate:
            raise UserError("final epochs have no rate where theta is never: give them one (final.rate)")

    @property
    def trains(self) -> bool:
        asks = self.hyperparameters.accuracy_drop_threshold != NEVER
        return bool(asks or self.freezes or self.hyperparameters.final_epochs or self.config.final.epochs)

    def prepare(self, executor: TorchExecutor, probes: bool) -> Preparation:
        """The original accuracy and, where anything freezes, the freezing probe (section III-B): prune the first step
        at the full ratio, fine-tune one epoch and rank the layers. The probe's network is thrown away.
        """
        preparation = super().prepare(executor, probes)
        if not probes:
            return preparation
        removed, scored = choose_removal(executor, executor.root, 1, self.config)
        pruned = executor.run(executor.root, Prune(removed))
        executor.commit(pruned.snapshot)
        rate = self.config.freeze.probe_learning_rate
        tuned = executor.run(pruned.snapshot, FineTune(("probe",), rate, 1, "constant", ()))
        compared = executor.run(tuned.snapshot, CompareWeights(pruned.snapshot, self.config.freeze.change))
        executor.store.keep_only(())
        return dataclasses.replace(
            preparation,
            weight_changes=compared.value,
            ranking=rank_by_change(compared.value),
            probe_seconds=sum(each.cost.wall_seconds for each in (scored, pruned, tuned, compared)),
        )

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Take the next pruning step: remove, repair, measure, and fine-tune if the drop has reached the threshold.

        The drop is always against the ORIGINAL accuracy, so one that is skipped carries over to the next step.
        """
        number = len(state.records) + 1
        is_last = number == len(executor.network.steps)
        removed, scored = choose_removal(executor, state.snapshot, number, self.config)
        pruned = executor.run(state.snapshot, removal_action(removed, number, self.config, is_last))
        costs = (Cost(), pruned.cost) if self.config.repair != "none" else (pruned.cost, Cost())
        removal = Removal(pruned.snapshot, sum(len(filters) for _, filters in removed), scored.cost, *costs)
        share = executor.run(pruned.snapshot, UnprunedShare(self.config.alpha)).value
        name, before = executor.network.steps[number - 1].name, accuracy_before(state, preparation)
        record = with_removal(unchanged(number, name, share, before, preparation), removal)
        threshold = self._threshold(preparation.original_accuracy)
        # Where nothing is asked, a few images show a person what the step has done; that is no part of PT.
        few = None if threshold or is_last else _SHOWN_IMAGES
        measured = executor.run(pruned.snapshot, Measure(threshold, few))
        record = with_accuracy(record, measured.value, Cost() if few else measured.cost, preparation)
        after = PipelineState(pruned.snapshot, (*state.records, record))
        if self.needs_fine_tuning(record, threshold):
            return self._fine_tune(executor, after, preparation)
        # A step that no fine-tune follows keeps this accuracy. A part of the images is enough for that only where it
        # was found to be below the threshold (within the error that was asked for), and not for the last step's.
        if measured.value.reached or is_last:
            after = self._measured_whole(executor, after, preparation)
            # With an error allowed, all images may say otherwise than a part of them did.
            if self.needs_fine_tuning(after.records[-1], threshold):
                return self._fine_tune(executor, after, preparation)
        return after

    def needs_fine_tuning(self, record: StepRecord, threshold: Threshold | None) -> bool:
        """Whether a step is followed by a fine-tune: the drop after its removal has reached the threshold."""
        return not self.config.threshold or (threshold is not None and threshold.reached(record.accuracy))

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        """The final epochs, if any."""
        final = self.config.final
        if not final.epochs:
            return state, Cost()
        rate = final.rate or final.rate_factor * self._rate(state.records[-1].unpruned_share)
        schedule = final.schedule or self.config.fine_tune.schedule
        frozen = self._frozen(preparation)
        action = FineTune(("final",), rate, final.epochs, schedule, frozen, final=True, cut=self._cuts)
        tuned = executor.run(state.snapshot, action)
        return dataclasses.replace(state, snapshot=tuned.snapshot), tuned.cost

    def _fine_tune(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Fine-tune after the step just recorded, and complete its record."""
        *earlier, record = state.records
        rate, plan = self._rate(record.unpruned_share), self.config.fine_tune
        early_stopping, threshold = self.config.early_stopping.asked, self._threshold(preparation.original_accuracy)
        # A whole single epoch has nothing to stop; else the last measurement made while training is the step's.
        # Without a threshold there is nothing to be below.
        several = self.config.threshold and (plan.epochs > 1 or early_stopping is not None)
        action = FineTune(
            key=("step", record.step),
            learning_rate=rate,
            epochs=plan.epochs,
            schedule=plan.schedule,
            frozen=self._frozen(preparation),
            cut=self._cuts,
            until=threshold if several else None,
            early_stopping=early_stopping if several else None,
        )
        tuned = executor.run(state.snapshot, action)
        complete, found, cost = with_fine_tune(record, action, tuned), tuned.value.accuracy, Cost()
        if found is None:
            measured = executor.run(tuned.snapshot, Measure())
            found, cost = measured.value.accuracy, measured.cost
        complete = with_accuracy(complete, Measured(found, executor.validation_images), cost, preparation)
        return PipelineState(tuned.snapshot, (*earlier, complete))

    def _measured_whole(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """The last record with the accuracy over all validation images, where it was over a part of them."""
        *earlier, record = state.records
        if record.images_measured == executor.validation_images:
            return state
        measured = executor.run(state.snapshot, Measure())
        return PipelineState(
            state.snapshot, (*earlier, with_accuracy(record, measured.value, measured.cost, preparation))
        )

    @property
    def _cuts(self) -> bool:
        return self.config.freeze.stem and self.freezes

    def _threshold(self, original: float) -> Threshold | None:
        """The question after every step; None where theta is never."""
        theta = self.hyperparameters.accuracy_drop_threshold
        return None if theta == NEVER else Threshold(original, theta, self.config.decision_error)

    def _rate(self, unpruned_share: float) -> float:
        if not self.config.scheduler:
            return on_logarithmic_grid(self.hyperparameters.base_learning_rate, self.config.lr_tolerance)
        return maximum_learning_rate(self.hyperparameters, unpruned_share, self.config.lr_tolerance)

    def _frozen(self, preparation: Preparation) -> tuple[str, ...]:
        if not self.config.freezing:
            return ()
        return frozen_layers(preparation.ranking, self.hyperparameters.frozen_fraction)
