"""What a pipeline is: decisions, one step at a time, on an executor that it tells what to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from ice_ray.engine.actions import EarlyStopping, FineTune
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.records import FINAL_RETRAINING, PipelineState, Preparation
from ice_ray.pipelines.rounds import Removal, round_record
from ice_ray.training.schedules import SCHEDULES, Schedule


@dataclass(frozen=True)
class FineTunePlan:
    """How long a pipeline fine-tunes, and along which schedule.

    Attributes:
        epochs: of each fine-tune at most; the paper has one. With more, it ends after the epoch that brings the drop
            below the threshold.
        early_stopping: looks inside a fine-tune, which end it once it has recovered; the paper has none.
        schedule: of the learning rate inside a fine-tune, under the bound of eq. 1.
        final_epochs: of a last fine-tune after the last step; the paper's TinyImageNet has four.
        final_rate_factor: times the bound, for the final epochs; 2 in the authors' program.
        final_rate: of the final epochs, in place of that.
        final_schedule: of the final epochs, where it is not `schedule`.
    """

    epochs: int = 1
    early_stopping: EarlyStopping | None = None
    schedule: Schedule = "constant"
    final_epochs: int = 0
    final_rate_factor: float = 2.0
    final_rate: float | None = None
    final_schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.final_epochs < 0:
            raise UserError(f"epochs {self.epochs} must be at least 1, final epochs {self.final_epochs} at least 0")
        for schedule in (self.schedule, self.final_schedule or self.schedule):
            if schedule not in SCHEDULES:
                raise UserError(f"unknown schedule '{schedule}'; valid: {', '.join(SCHEDULES)}")
        if not self.final_rate_factor > 0:
            raise UserError(f"--replay.final-rate-factor {self.final_rate_factor} must be above 0")


@dataclass(frozen=True, kw_only=True)
class Pipeline(ABC):
    """Decides what is done; never touches a tensor of the network. A new one is a file beside this one and a line in
    the registry.

    Everything it must remember is in the state: a run goes on from a state and the snapshot that it names.

    Attributes:
        hyperparameters: of this run.
        fine_tune: epochs and schedule of the fine-tunes.
    """

    hyperparameters: Hyperparameters
    fine_tune: FineTunePlan = FineTunePlan()

    def begin(self, executor: Executor) -> PipelineState:
        """The dense network, nothing pruned yet."""
        return PipelineState(executor.root)

    def length(self, steps: int) -> int:
        """Rounds of a run at most; a retraining, or a record of what stands, may come on top.

        Args:
            steps: pruning steps that the network has.
        """
        return steps

    def is_done(self, executor: Executor, state: PipelineState) -> bool:
        """Whether every step has been taken, and the retraining that the hyperparameters ask for."""
        return self.is_pruned(executor, state) and (state.retrained or not self.hyperparameters.final_epochs)

    def advance(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Go on: a record more."""
        if self.is_pruned(executor, state):
            return self._retrain(executor, state, preparation)
        return self.step(executor, state, preparation)

    def is_pruned(self, executor: Executor, state: PipelineState) -> bool:
        """Whether every pruning step has been taken."""
        return len(state.records) >= len(executor.network.steps)

    @abstractmethod
    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """Take the next pruning step: a record more."""

    def finish(self, executor: Executor, state: PipelineState, preparation: Preparation) -> tuple[PipelineState, Cost]:
        """What comes after the last record, if anything; its cost is no part of PT."""
        return state, Cost()

    def retraining(self) -> FineTune:
        """The training after the last step that the hyperparameters ask for."""
        asked = self.hyperparameters
        return FineTune(("retraining",), asked.final_learning_rate, asked.final_epochs, "linear", ())

    def _retrain(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """The budgeted retraining with a linear schedule (LLR of Zimmer et al. 2022): a part of PT, as its length is
        searched.
        """
        last = state.records[-1]
        unchanged, action = Removal(state.snapshot), self.retraining()
        record, after = round_record(
            executor,
            preparation,
            last.step + 1,
            last.accuracy,
            FINAL_RETRAINING,
            unchanged,
            action,
            last.unpruned_share,
        )
        record = replace(record, accuracy_after_pruning=last.accuracy)
        return replace(state, snapshot=after, records=(*state.records, record), retrained=True)
