"""Which filters a step removes: as many as the amounts name, lowest scores first."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.engine.actions import Prune, Repair, Score, SnapshotId
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.criteria import lowest
from ice_ray.repair import RepairKind, refits


@dataclass(frozen=True)
class RemovalRule:
    """How the filters to remove are chosen.

    Attributes:
        amounts: how many go from each layer.
        criterion: by name; the lowest scores go first.
        calibration_images: training images that a criterion which looks at data looks at.
        reconstruction_epochs: passes over them of a repair that reconstructs.
    """

    amounts: Amounts
    criterion: str = "l1"
    calibration_images: int = 1000
    reconstruction_epochs: float = 5.0


@dataclass(frozen=True)
class RemovalChoice:
    """The removal that a step will make (per layer, indices as it is now), how many filters that takes, and what
    choosing them cost.
    """

    removed: tuple[tuple[str, tuple[int, ...]], ...]
    filters: int
    cost: Cost


def choose_removal(executor: Executor, snapshot: SnapshotId, step: int, rule: RemovalRule) -> RemovalChoice:
    """The filters of the lowest scores of each unit of the step."""
    scored = executor.run(snapshot, Score(step, rule.criterion, rule.calibration_images))
    removed = tuple(
        (unit.layer, lowest(scored.value[unit.layer], rule.amounts.removed(unit), unit.groups))
        for unit in executor.network.steps[step - 1].units
    )
    return RemovalChoice(removed, sum(len(filters) for _, filters in removed), scored.cost)


def removal_action(choice: RemovalChoice, step: int, rule: RemovalRule, repair: RepairKind) -> Prune | Repair:
    """What takes the chosen filters: removal alone, or removal and repair."""
    if repair == "none":
        return Prune(choice.removed)
    scored = rule.criterion == "residual" and refits(repair)
    epochs = rule.reconstruction_epochs if repair == "reconstruction" else 0.0
    return Repair(step, repair, choice.removed, rule.calibration_images, scored, epochs)
