"""The baseline of the paper's tables: one epoch of fine-tuning after every pruning step, whatever the drop."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.engine.actions import FineTune
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.hyperparameters import Hyperparameters, searched
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.pipelines.removal_choice import RemovalRule, choose_removal, removal_action
from ice_ray.pipelines.rounds import Removal, accuracy_before, round_record
from ice_ray.repair import RepairKind


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
    """The same removals as ICE's; nothing frozen, no threshold, a rate of its own. It measures once a step, after the
    fine-tune: it has no question to ask before.

    Attributes:
        removal: which filters go, and how many.
        repair: repair after every removal; the paper has none.
    """

    hyperparameters: BaselineHyperparameters
    removal: RemovalRule
    repair: RepairKind = "none"

    def step(self, executor: Executor, state: PipelineState, preparation: Preparation) -> PipelineState:
        step = executor.network.steps[len(state.records)]
        choice = choose_removal(executor, state.snapshot, step.number, self.removal)
        pruned = executor.run(state.snapshot, removal_action(choice, step.number, self.removal, self.repair))
        costs = (Cost(), pruned.cost) if self.repair != "none" else (pruned.cost, Cost())
        removal = Removal(pruned.snapshot, choice.filters, choice.cost, *costs)
        plan = self.fine_tune
        fine_tune = FineTune(
            ("step", step.number), self.hyperparameters.learning_rate, plan.epochs, plan.schedule, frozen=()
        )
        record, after = round_record(
            executor, preparation, step.number, accuracy_before(state, preparation), step.name, removal, fine_tune
        )
        return PipelineState(after, (*state.records, record))
