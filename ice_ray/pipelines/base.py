"""What a pipeline is: decisions, one step at a time, on an executor that it tells what to do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from ice_ray import hyperparameters as searched
from ice_ray.engine.actions import FineTune, Measure, SnapshotId
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.errors import require
from ice_ray.pipelines.records import FINAL_RETRAINING, PipelineState, Preparation
from ice_ray.pipelines.rounds import Removal, round_record
from ice_ray.pruning.amounts import RATIO_BOUND, Amounts, is_ratio
from ice_ray.pruning.config import PruneConfig
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.schedules import Schedule

if TYPE_CHECKING:
    from ice_ray.engine.torch_executor import TorchExecutor

RETRAINING_KEY = ("retraining",)
"""Of the fine-tune that is the retraining after the last step."""


@dataclass(frozen=True)
class FinalConfig:
    """Final epochs: one more fine-tune at the end of stage 2, apart from PT (the paper's TinyImageNet has four)."""

    epochs: int = 0
    """Epochs of it; 0 = none."""
    subsample: float | None = None
    """Share of the training images that it trains on. [default: as --replay.subsample]"""
    rate_factor: float = 2.0
    """Learning rate, times eq. 1's bound (2 in the authors' program)."""
    rate: float | None = None
    """Learning rate, in place of that."""
    schedule: Schedule | None = None
    """constant, cosine or linear. [default: as --fine-tune.schedule]"""

    def __post_init__(self) -> None:
        require(self, "epochs", self.epochs >= 0, "must be at least 0")
        require(self, "subsample", self.subsample is None or 0 < self.subsample <= 1, "must be in (0, 1]")
        require(self, "rate_factor", 0 < self.rate_factor < math.inf, "must be above 0")
        require(self, "rate", self.rate is None or 0 < self.rate < math.inf, "must be above 0")


@dataclass(frozen=True)
class PipelineConfig:
    """The options that every pipeline reads; a pipeline's own `Config` is a frozen dataclass that adds to them.

    A field with a docstring is an option: of the command line, of `ice_ray.prune`, and in what is kept of a run.
    Fields of fields are groups (`--fine-tune.temperature`).
    """

    ratio: float = 0.5
    """Share of the filters to remove from every prunable layer, inside (0, 1)."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)

    def __post_init__(self) -> None:
        require(self, "ratio", is_ratio(self.ratio), RATIO_BOUND)

    @property
    def amounts(self) -> Amounts:
        """How many filters go from each layer at the most."""
        return Amounts(self.ratio)

    @property
    def allocates(self) -> bool:
        """Whether a target is shared out by what widths cost."""
        return False

    @property
    def own_code(self) -> dict[str, str]:
        """What of it may be the user's: names by what they are."""
        return {}

    @property
    def idle_hyperparameters(self) -> tuple[str, ...]:
        """The hyperparameters that decide nothing with these options: one value of each is as good as another."""
        return ()

    @property
    def freezes(self) -> bool:
        """Whether layers are held fixed where the hyperparameters say so."""
        return False

    @property
    def final_training(self) -> FinalConfig:
        """What stage 2 does after everything that the hyperparameters ask for."""
        return FinalConfig()

    def for_replay(self) -> Self:
        """As stage 2 has it."""
        return self

    def on_rung(self, share: float) -> Self:
        """As a rung of a ladder has it.

        Args:
            share: the least that is to be left on it of what its target names.
        """
        return self


@dataclass(frozen=True, kw_only=True)
class Pipeline(ABC):
    """Decides what is done; never touches a tensor of the network. A new one is a file beside this one and a line in
    the registry, or the user's own `package.module:Class`.

    Everything it must remember is in the state: a run goes on from a state and the snapshot that it names.

    Attributes:
        Config: its options.
        Hyperparameters: what is searched.
        takes_target: whether every layer loses the share that `ratio` names, so that a target can find that share.
        trains_anew: whether it begins with a network that knows nothing.
        search_share: of the training images, what a trial has unless asked otherwise.
        config: of this run.
        hyperparameters: of this run.
    """

    Config: ClassVar[type[PipelineConfig]] = PipelineConfig
    Hyperparameters: ClassVar[type[searched.Hyperparameters]] = searched.Hyperparameters
    takes_target: ClassVar[bool] = True
    trains_anew: ClassVar[bool] = False
    search_share: ClassVar[float] = 0.1

    config: PipelineConfig
    hyperparameters: searched.Hyperparameters

    def prepare(self, executor: TorchExecutor, probes: bool) -> Preparation:
        """What comes before the first step and is the same for all hyperparameters: the original accuracy.

        Args:
            probes: whether any run that starts from it will freeze layers.
        """
        original = executor.run(executor.root, Measure())
        found = executor.network.amounts.allocation if executor.network.amounts is not None else None
        allocation = Cost() if found is None else Cost(found.seconds, found.flops)
        return Preparation(original.value.accuracy, {}, (), original.cost.wall_seconds, 0.0, allocation)

    @property
    def freezes(self) -> bool:
        """Whether it holds layers fixed, and so needs the freezing probe."""
        return self.config.freezes and self.hyperparameters.freezes

    @property
    def trains(self) -> bool:
        """Whether it may train the network as a whole, on labels."""
        return True

    def begin(self, executor: Executor) -> PipelineState:
        """The dense network, nothing pruned yet."""
        return PipelineState(executor.root)

    def begin_below(self, executor: Executor, snapshot: SnapshotId, accuracy: float) -> PipelineState:
        """A rung of a ladder: what the rung above has come to. The executor holds it; its accuracy is in percent."""
        return replace(self.begin(executor), snapshot=snapshot, began_at=accuracy)

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
        """What comes after the last record in stage 2, if anything; its cost is no part of PT."""
        return state, Cost()

    def retraining(self) -> FineTune:
        """The training after the last step that the hyperparameters ask for."""
        asked = self.hyperparameters
        return FineTune(RETRAINING_KEY, asked.final_learning_rate, asked.final_epochs, "linear", ())

    def _retrain(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        """The budgeted retraining with a linear schedule (LLR of Zimmer et al. 2022): a part of PT, as its length is
        searched.
        """
        last = state.records[-1]
        record, after = round_record(
            executor,
            preparation,
            last.step + 1,
            last.accuracy,
            FINAL_RETRAINING,
            Removal(state.snapshot),
            self.retraining(),
            last.unpruned_share,
        )
        record = replace(record, accuracy_after_pruning=last.accuracy)
        return replace(state, snapshot=after, records=(*state.records, record), retrained=True)
