"""ICE-Pruning: fine-tune only after the steps that need it (Algorithm 2)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ice_ray.engine.actions import Counting, Measure, Recover, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord
from ice_ray.pipelines.removal_choice import choose_removal
from ice_ray.pruning.freezing import frozen_layers
from ice_ray.training.schedules.pruning_aware import maximum_learning_rate

FINAL_RATE_FACTOR = 2.0
"""The final epochs run at twice eq. 1's bound, as in the authors' program."""


@dataclass(frozen=True)
class IcePipeline:
    """The pruning-fine-tuning operator of the paper.

    Attributes:
        ratio: share of each unit's filters to remove, inside (0, 1).
        criterion: by name; lowest scores go first.
        hyperparameters: the six.
        counting: what alpha of eq. 1 counts.
        learning_rate_tolerance: step of the logarithmic grid that rates are rounded to; 0 rounds nothing.
        epochs: of each fine-tune; the paper has one.
        final_epochs: of a last fine-tune after the last step; the paper's TinyImageNet has four.
    """

    ratio: float
    criterion: str
    hyperparameters: Hyperparameters
    counting: Counting = "parameters"
    learning_rate_tolerance: float = 1e-3
    epochs: int = 1
    final_epochs: int = 0

    def begin(self, executor: Executor) -> PipelineState:
        """The dense network, nothing pruned yet."""
        return PipelineState(executor.root)

    def is_done(self, executor: Executor, state: PipelineState) -> bool:
        """Whether every step has been taken."""
        return len(state.records) == len(executor.network.steps)

    def advance(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Take the next pruning step: remove, measure, and fine-tune if the drop has reached the threshold.

        The drop is always against the ORIGINAL accuracy, so one that is skipped carries over to the next step.
        """
        step = executor.network.steps[len(state.records)]
        original = preparation.original_accuracy
        choice = choose_removal(executor, state.snapshot, step.number, self.ratio, self.criterion)
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
            learning_rate_max=None,
            scoring_seconds=choice.cost.wall_seconds,
            removal_seconds=pruned.cost.wall_seconds,
            measuring_seconds=measured.cost.wall_seconds,
            recovery_seconds=0.0,
            flops=(choice.cost + pruned.cost + measured.cost).flops,
        )
        after = PipelineState(pruned.snapshot, (*state.records, record))
        if record.drop >= self.hyperparameters.accuracy_drop_threshold:
            return self._recover(executor, after, preparation)
        return after

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        """The final epochs, if any; what they cost is no part of PT."""
        if not self.final_epochs:
            return state, Cost()
        rate = FINAL_RATE_FACTOR * self._rate(state.records[-1].unpruned_share)
        recovered = executor.run(state.snapshot, self._fine_tune(("final",), rate, self.final_epochs, preparation))
        return PipelineState(recovered.snapshot, state.records), recovered.cost

    def _recover(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Fine-tune after the step just recorded, and complete its record."""
        *earlier, record = state.records
        rate = self._rate(record.unpruned_share)
        action = self._fine_tune(("step", record.step), rate, self.epochs, preparation)
        recovered = executor.run(state.snapshot, action)
        measured = executor.run(recovered.snapshot, Measure())
        complete = dataclasses.replace(
            record,
            accuracy=measured.value,
            drop=accuracy_drop(preparation.original_accuracy, measured.value),
            fine_tuned=True,
            learning_rate_max=rate,
            measuring_seconds=record.measuring_seconds + measured.cost.wall_seconds,
            recovery_seconds=recovered.cost.wall_seconds,
            flops=record.flops + (recovered.cost + measured.cost).flops,
        )
        return PipelineState(recovered.snapshot, (*earlier, complete))

    def _rate(self, unpruned_share: float) -> float:
        return maximum_learning_rate(self.hyperparameters, unpruned_share, self.learning_rate_tolerance)

    def _fine_tune(self, key: tuple[int | str, ...], rate: float, epochs: int, preparation: Preparation) -> Recover:
        frozen = frozen_layers(preparation.ranking, self.hyperparameters.frozen_fraction)
        return Recover(key, (rate,) * epochs, frozen)
