"""ICE-Pruning: fine-tune only after the steps that need it (Algorithm 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ice_ray.engine.actions import Counting, FineTune, Measure, Outcome, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.engine.threshold import Threshold
from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.ablations import Ablations
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.pipelines.removal_choice import RemovalRule, choose_removal, removal_action
from ice_ray.pipelines.rounds import accuracy_before
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.repair import RepairKind
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate, on_logarithmic_grid


@dataclass(frozen=True, kw_only=True)
class IcePipeline(Pipeline):
    """The pruning-fine-tuning operator of the paper.

    Attributes:
        hyperparameters: the six.
        removal: which filters go, and how many.
        counting: what alpha of eq. 1 counts.
        learning_rate_tolerance: step of the logarithmic grid that rates are rounded to; 0 rounds nothing.
        decision_error: how probable a wrong answer to the threshold's question may be; 0 answers it exactly.
        freeze_stem: whether what lies below the lowest layer that trains is held fixed too, where layers are.
        repair: repair after every removal, before its effect is measured; the paper has none.
        ablations: which of its parts are left in.
    """

    hyperparameters: IceHyperparameters
    removal: RemovalRule
    counting: Counting = "parameters"
    learning_rate_tolerance: float = 1e-3
    decision_error: float = 0.0
    freeze_stem: bool = False
    repair: RepairKind = "none"
    ablations: Ablations = Ablations()

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Take the next pruning step: remove, repair, measure, and fine-tune if the drop has reached the threshold.

        The drop is always against the ORIGINAL accuracy, so one that is skipped carries over to the next step.
        """
        step = executor.network.steps[len(state.records)]
        original = preparation.original_accuracy
        choice = choose_removal(executor, state.snapshot, step.number, self.removal)
        pruned = executor.run(state.snapshot, removal_action(choice, step.number, self.removal, self.repair))
        share = executor.run(pruned.snapshot, UnprunedShare(self.counting))
        repairs, before = self.repair != "none", accuracy_before(state, preparation)
        record = StepRecord(
            step=step.number,
            layers=step.name,
            filters_removed=choice.filters,
            unpruned_share=share.value,
            accuracy_before=before,
            accuracy=before,
            drop=accuracy_drop(original, before),
            measured=False,
            scoring_seconds=choice.cost.wall_seconds,
            removal_seconds=0.0 if repairs else pruned.cost.wall_seconds,
            repair_seconds=pruned.cost.wall_seconds if repairs else 0.0,
            flops=(choice.cost + pruned.cost).flops,
        )
        after = PipelineState(pruned.snapshot, (*state.records, record))
        threshold = self._threshold(original)
        # What no network can reach is not asked, but where a part of the images would not do for the record.
        asks = not self.ablations.threshold or not self.decision_error or threshold.is_reachable
        if not asks and step.number < len(executor.network.steps):
            return after
        measured = executor.run(pruned.snapshot, Measure(threshold if asks else None))
        record = _with_accuracy(record, measured, original)
        after = PipelineState(pruned.snapshot, (*state.records, record))
        if self.needs_fine_tuning(record):
            return self._fine_tune(executor, after, preparation)
        # A step that no fine-tune follows keeps this accuracy. A part of the images is enough for that only where it
        # was found to be below the threshold (within the error that was asked for), and not for the last step's.
        if measured.value.reached or step.number == len(executor.network.steps):
            after = self._measured_whole(executor, after, original)
            # With an error allowed, all images may say otherwise than a part of them did.
            return self._fine_tune(executor, after, preparation) if self.needs_fine_tuning(after.records[-1]) else after
        return after

    def needs_fine_tuning(self, record: StepRecord) -> bool:
        """Whether a step is followed by a fine-tune: the drop after its removal has reached the threshold."""
        return not self.ablations.threshold or record.drop >= self.hyperparameters.accuracy_drop_threshold

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        """The final epochs, if any."""
        if not self.fine_tune.final_epochs:
            return state, Cost()
        plan, frozen = self.fine_tune, self._frozen(preparation)
        bound = self._rate(state.records[-1].unpruned_share)
        rate = plan.final_rate_factor * bound if plan.final_rate is None else plan.final_rate
        schedule = plan.final_schedule or plan.schedule
        action = FineTune(("final",), rate, plan.final_epochs, schedule, frozen, final=True, cut=self._cuts)
        tuned = executor.run(state.snapshot, action)
        return dataclasses.replace(state, snapshot=tuned.snapshot), tuned.cost

    def _fine_tune(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Fine-tune after the step just recorded, and complete its record."""
        *earlier, record = state.records
        rate = self._rate(record.unpruned_share)
        # A whole single epoch has nothing to stop; else the last measurement made while training is the step's.
        # Without a threshold there is nothing to be below.
        several = self.ablations.threshold and (self.fine_tune.epochs > 1 or self.fine_tune.early_stopping is not None)
        action = FineTune(
            key=("step", record.step),
            learning_rate=rate,
            epochs=self.fine_tune.epochs,
            schedule=self.fine_tune.schedule,
            frozen=self._frozen(preparation),
            cut=self._cuts,
            until=self._threshold(preparation.original_accuracy) if several else None,
            early_stopping=self.fine_tune.early_stopping if several else None,
        )
        tuned = executor.run(state.snapshot, action)
        accuracy, measuring = tuned.value.accuracy, Cost()
        if not several:
            measured = executor.run(tuned.snapshot, Measure())
            accuracy, measuring = measured.value.accuracy, measured.cost
        complete = dataclasses.replace(
            record,
            accuracy=accuracy,
            drop=accuracy_drop(preparation.original_accuracy, accuracy),
            fine_tuned=True,
            epochs=tuned.value.epochs,
            learning_rate_max=rate,
            measuring_seconds=record.measuring_seconds + measuring.wall_seconds,
            fine_tuning_seconds=tuned.cost.wall_seconds,
            flops=record.flops + (tuned.cost + measuring).flops,
        )
        return PipelineState(tuned.snapshot, (*earlier, complete))

    def _measured_whole(self, executor: Executor, state: PipelineState, original: float) -> PipelineState:
        """The last record with the accuracy over all validation images, where it was over a part of them."""
        *earlier, record = state.records
        if record.images_measured == executor.validation_images:
            return state
        whole = _with_accuracy(record, executor.run(state.snapshot, Measure()), original)
        return PipelineState(state.snapshot, (*earlier, whole))

    @property
    def _cuts(self) -> bool:
        return self.freeze_stem and self.ablations.freezing and self.hyperparameters.freezes

    def _threshold(self, original: float) -> Threshold:
        return Threshold(original, self.hyperparameters.accuracy_drop_threshold, self.decision_error)

    def _rate(self, unpruned_share: float) -> float:
        if not self.ablations.scheduler:
            return on_logarithmic_grid(self.hyperparameters.base_learning_rate, self.learning_rate_tolerance)
        return maximum_learning_rate(self.hyperparameters, unpruned_share, self.learning_rate_tolerance)

    def _frozen(self, preparation: Preparation) -> tuple[str, ...]:
        if not self.ablations.freezing:
            return ()
        return frozen_layers(preparation.ranking, self.hyperparameters.frozen_fraction)


def _with_accuracy(record: StepRecord, measured: Outcome, original: float) -> StepRecord:
    """The record of a step that no fine-tune has followed yet, with what a measurement has found and cost."""
    accuracy = measured.value.accuracy
    return dataclasses.replace(
        record,
        accuracy_after_pruning=accuracy,
        accuracy=accuracy,
        drop=accuracy_drop(original, accuracy),
        measured=True,
        images_measured=measured.value.images,
        measuring_seconds=record.measuring_seconds + measured.cost.wall_seconds,
        flops=record.flops + measured.cost.flops,
    )
