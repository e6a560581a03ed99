"""ICE-Pruning: fine-tune only after the steps that need it (Algorithm 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ice_ray.engine.actions import Counting, Measure, Recover, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.base import Pipeline, RecoveryPlan
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.pipelines.removal_choice import RemovalRule, choose_removal
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate


@dataclass(frozen=True)
class IcePipeline(Pipeline):
    """The pruning-fine-tuning operator of the paper.

    Attributes:
        removal: which filters go, and how many.
        hyperparameters: the six.
        counting: what alpha of eq. 1 counts.
        learning_rate_tolerance: step of the logarithmic grid that rates are rounded to; 0 rounds nothing.
        recovery: epochs and schedule of the fine-tunes.
    """

    removal: RemovalRule
    hyperparameters: Hyperparameters
    counting: Counting = "parameters"
    learning_rate_tolerance: float = 1e-3
    recovery: RecoveryPlan = RecoveryPlan()

    def advance(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Take the next pruning step: remove, measure, and fine-tune if the drop has reached the threshold.

        The drop is always against the ORIGINAL accuracy, so one that is skipped carries over to the next step.
        """
        step = executor.network.steps[len(state.records)]
        original = preparation.original_accuracy
        choice = choose_removal(executor, state.snapshot, step.number, self.removal)
        pruned = executor.run(state.snapshot, choice.action)
        share = executor.run(pruned.snapshot, UnprunedShare(self.counting))
        measured = executor.run(pruned.snapshot, Measure())
        record = StepRecord(
            step=step.number,
            layers=step.name,
            filters_removed=choice.filters,
            unpruned_share=share.value,
            accuracy_before=state.accuracy if state.records else original,
            accuracy_after_pruning=measured.value,
            accuracy=measured.value,
            drop=accuracy_drop(original, measured.value),
            fine_tuned=False,
            epochs=0,
            learning_rate_max=None,
            scoring_seconds=choice.cost.wall_seconds,
            removal_seconds=pruned.cost.wall_seconds,
            measuring_seconds=measured.cost.wall_seconds,
            recovery_seconds=0.0,
            flops=(choice.cost + pruned.cost + measured.cost).flops,
        )
        after = PipelineState(pruned.snapshot, (*state.records, record))
        return self._recover(executor, after, preparation) if self.needs_recovery(record) else after

    def needs_recovery(self, record: StepRecord) -> bool:
        """Whether a step is followed by a fine-tune: the drop after its removal has reached the threshold."""
        return record.drop >= self.hyperparameters.accuracy_drop_threshold

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        """The final epochs, if any."""
        if not self.recovery.final_epochs:
            return state, Cost()
        rate = self.recovery.final_rate_factor * self._rate(state.records[-1].unpruned_share)
        epochs, frozen = self.recovery.final_epochs, self._frozen(preparation)
        action = Recover(("final",), rate, epochs, self.recovery.schedule, frozen, final=True)
        recovered = executor.run(state.snapshot, action)
        return PipelineState(recovered.snapshot, state.records), recovered.cost

    def _recover(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Fine-tune after the step just recorded, and complete its record."""
        *earlier, record = state.records
        rate = self._rate(record.unpruned_share)
        # A single epoch has nothing to stop; with more, the last measurement made while training is the step's.
        several = self.recovery.epochs > 1
        enough = preparation.original_accuracy - self.hyperparameters.accuracy_drop_threshold if several else None
        action = Recover(
            key=("step", record.step),
            learning_rate=rate,
            epochs=self.recovery.epochs,
            schedule=self.recovery.schedule,
            frozen=self._frozen(preparation),
            stop_above=enough,
        )
        recovered = executor.run(state.snapshot, action)
        accuracy, measuring = recovered.value.accuracy, Cost()
        if not several:
            measured = executor.run(recovered.snapshot, Measure())
            accuracy, measuring = measured.value, measured.cost
        complete = dataclasses.replace(
            record,
            accuracy=accuracy,
            drop=accuracy_drop(preparation.original_accuracy, accuracy),
            fine_tuned=True,
            epochs=recovered.value.epochs,
            learning_rate_max=rate,
            measuring_seconds=record.measuring_seconds + measuring.wall_seconds,
            recovery_seconds=recovered.cost.wall_seconds,
            flops=record.flops + (recovered.cost + measuring).flops,
        )
        return PipelineState(recovered.snapshot, (*earlier, complete))

    def _rate(self, unpruned_share: float) -> float:
        return maximum_learning_rate(self.hyperparameters, unpruned_share, self.learning_rate_tolerance)

    def _frozen(self, preparation: Preparation) -> tuple[str, ...]:
        return frozen_layers(preparation.ranking, self.hyperparameters.frozen_fraction)
