"""A round, for pipelines that train after every removal: what it is and the record it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ice_ray.engine.actions import Counting, FineTune, Measure, Measured, Outcome, Prune, SnapshotId, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.models.units import PrunableUnit
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Removal:
    """What a round has taken.

    Attributes:
        snapshot: the network after it.
        filters: how many went.
        scoring, removing, repairing: what the parts cost.
    """

    snapshot: SnapshotId
    filters: int = 0
    scoring: Cost = Cost()
    removing: Cost = Cost()
    repairing: Cost = Cost()


def unchanged(number: int, name: str, unpruned_share: float, accuracy: float, preparation: Preparation) -> StepRecord:
    """The record of a step at which nothing has been done: it ends as it began. It has no cost, but the first has that
    of the allocation.
    """
    begun = preparation.allocation if number == 1 else Cost()
    return StepRecord(
        step=number,
        layers=name,
        unpruned_share=unpruned_share,
        accuracy_before=accuracy,
        accuracy=accuracy,
        drop=accuracy_drop(preparation.original_accuracy, accuracy),
        scoring_seconds=begun.wall_seconds,
        flops=begun.flops,
    )


def with_removal(record: StepRecord, removal: Removal) -> StepRecord:
    """The record, with what has been removed and repaired and what that cost."""
    return replace(
        record,
        filters_removed=removal.filters,
        scoring_seconds=record.scoring_seconds + removal.scoring.wall_seconds,
        removal_seconds=removal.removing.wall_seconds,
        repair_seconds=removal.repairing.wall_seconds,
        flops=record.flops + (removal.scoring + removal.removing + removal.repairing).flops,
    )


def with_fine_tune(record: StepRecord, action: FineTune, tuned: Outcome) -> StepRecord:
    """The record, with a fine-tune and what it cost."""
    return replace(
        record,
        fine_tuned=True,
        epochs=tuned.value.epochs,
        learning_rate_max=action.learning_rate,
        fine_tuning_seconds=tuned.cost.wall_seconds,
        flops=record.flops + tuned.cost.flops,
    )


def with_accuracy(record: StepRecord, found: Measured, cost: Cost, preparation: Preparation) -> StepRecord:
    """The record, with the accuracy of the network as it is now and what measuring it cost: after a fine-tune, if there
    has been one, else after the removal.
    """
    return replace(
        record,
        accuracy=found.accuracy,
        accuracy_after_pruning=record.accuracy_after_pruning if record.fine_tuned else found.accuracy,
        drop=accuracy_drop(preparation.original_accuracy, found.accuracy),
        images_measured=record.images_measured if record.fine_tuned and record.images_measured else found.images,
        measuring_seconds=record.measuring_seconds + cost.wall_seconds,
        flops=record.flops + cost.flops,
    )


def round_record(
    executor: Executor,
    preparation: Preparation,
    number: int,
    accuracy_before: float,
    name: str,
    removal: Removal,
    fine_tune: FineTune | None,
    unpruned_share: float | None = None,
) -> tuple[StepRecord, SnapshotId]:
    """Train as `fine_tune` says, measure once, and write down the round; None trains nothing.

    Args:
        number: of the round, from 1.
        accuracy_before: of what it started from, percent.
        name: what was pruned, for people.
        unpruned_share: after the removal, where it is known.
    """
    if unpruned_share is None:
        counting: Counting = "non-zero-parameters" if fine_tune is not None and fine_tune.sparse else "parameters"
        unpruned_share = executor.run(removal.snapshot, UnprunedShare(counting)).value
    record = with_removal(unchanged(number, name, unpruned_share, accuracy_before, preparation), removal)
    snapshot = removal.snapshot
    if fine_tune is not None:
        tuned = executor.run(snapshot, fine_tune)
        record, snapshot = with_fine_tune(record, fine_tune, tuned), tuned.snapshot
    measured = executor.run(snapshot, Measure())
    return with_accuracy(record, measured.value, measured.cost, preparation), snapshot


def accuracy_before(state: PipelineState, preparation: Preparation) -> float:
    """Of a round that starts from where the last one ended, percent."""
    if state.records:
        return state.accuracy
    return preparation.original_accuracy if state.began_at is None else state.began_at


def remove(
    executor: Executor,
    snapshot: SnapshotId,
    removed: Mapping[str, Sequence[int]],
    scoring: Cost,
) -> Removal:
    """Remove filters, by layer; layers that lose none are left out."""
    losing = tuple((layer, tuple(filters)) for layer, filters in removed.items() if filters)
    if not losing:
        return Removal(snapshot, 0, scoring)
    pruned = executor.run(snapshot, Prune(losing))
    return Removal(pruned.snapshot, sum(len(filters) for _, filters in losing), scoring, pruned.cost)


def position_scores(unit: PrunableUnit, scores: Tensor) -> Tensor:
    """(places,): the mean over a unit's equal runs; filters of one place go together."""
    return scores.view(unit.groups, -1).mean(dim=0)


def filters_at(unit: PrunableUnit, positions: Sequence[int], width: int) -> tuple[int, ...]:
    """The filters at these places of every run, of a layer that is `width` wide now."""
    run = width // unit.groups
    return tuple(sorted(position + start for position in positions for start in range(0, width, run)))
