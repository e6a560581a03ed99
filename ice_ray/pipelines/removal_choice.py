"""Which filters a step removes: the share that the ratio names, lowest scores first."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.engine.actions import Prune, Score, SnapshotId
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.pruning.criteria import lowest
from ice_ray.pruning.units import removed_count


@dataclass(frozen=True)
class RemovalChoice:
    """The removal that a step will make, how many filters it takes, and what choosing them cost."""

    action: Prune
    filters: int
    cost: Cost


def choose_removal(executor: Executor, snapshot: SnapshotId, step: int, ratio: float, criterion: str) -> RemovalChoice:
    """ceil(ratio x filters) filters of each unit of the step, those of the lowest scores."""
    scored = executor.run(snapshot, Score(step, criterion))
    removed = tuple(
        (layer, lowest(scores, removed_count(ratio, len(scores)))) for layer, scores in scored.value.items()
    )
    return RemovalChoice(Prune(removed), sum(len(filters) for _, filters in removed), scored.cost)
