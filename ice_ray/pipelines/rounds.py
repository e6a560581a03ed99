"""A round, for pipelines that train after every removal: what it is and the record it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ice_ray.engine.actions import Counting, FineTune, Measure, Outcome, Prune, SnapshotId, UnprunedShare
from ice_ray.engine.cost import Cost
from ice_ray.engine.executor import Executor
from ice_ray.models.units import PrunableUnit
from ice_ray.objective import accuracy_drop
from ice_ray.pipelines.records import PipelineState, Preparation, StepRecord


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
    original = preparation.original_accuracy
    counting: Counting = "non-zero-parameters" if fine_tune is not None and fine_tune.sparse else "parameters"
    if unpruned_share is None:
        unpruned_share = executor.run(removal.snapshot, UnprunedShare(counting)).value
    trained = Outcome(removal.snapshot, None, Cost())
    if fine_tune is not None:
        trained = executor.run(removal.snapshot, fine_tune)
    measured = executor.run(trained.snapshot, Measure())
    accuracy = measured.value.accuracy
    record = StepRecord(
        step=number,
        layers=name,
        filters_removed=removal.filters,
        unpruned_share=unpruned_share,
        accuracy_before=accuracy_before,
        accuracy_after_pruning=None if fine_tune is not None else accuracy,
        accuracy=accuracy,
        drop=accuracy_drop(original, accuracy),
        images_measured=measured.value.images,
        fine_tuned=fine_tune is not None,
        epochs=0 if fine_tune is None else trained.value.epochs,
        learning_rate_max=None if fine_tune is None else fine_tune.learning_rate,
        scoring_seconds=removal.scoring.wall_seconds,
        removal_seconds=removal.removing.wall_seconds,
        repair_seconds=removal.repairing.wall_seconds,
        measuring_seconds=measured.cost.wall_seconds,
        fine_tuning_seconds=trained.cost.wall_seconds,
        flops=(removal.scoring + removal.removing + removal.repairing + trained.cost + measured.cost).flops,
    )
    return record, trained.snapshot


def closing_record(
    number: int, name: str, unpruned_share: float, accuracy: float, preparation: Preparation
) -> StepRecord:
    """A record without cost: what rounds have come to, of which the last does not stand."""
    return StepRecord(
        step=number,
        layers=name,
        unpruned_share=unpruned_share,
        accuracy_before=accuracy,
        accuracy=accuracy,
        drop=accuracy_drop(preparation.original_accuracy, accuracy),
    )


def accuracy_before(state: PipelineState, preparation: Preparation) -> float:
    """Of a round that starts from where the last one ended, percent."""
    return state.accuracy if state.records else preparation.original_accuracy


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
