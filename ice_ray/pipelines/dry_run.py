"""How far a trial is known from what is remembered: its decisions are made, nothing is carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ice_ray.cache.actions import ActionIndex, Key, key_of
from ice_ray.engine.actions import Action, Outcome, SnapshotId
from ice_ray.engine.executor import Executor
from ice_ray.errors import DivergedError
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation

if TYPE_CHECKING:
    from ice_ray.engine.network import DenseNetwork


class UnknownError(Exception):
    """Nobody has carried out the action on `snapshot` yet. `key` names it."""

    def __init__(self, key: Key, snapshot: SnapshotId) -> None:
        super().__init__(key)
        self.key, self.snapshot = key, snapshot


@dataclass(frozen=True)
class KnownOutcomes:
    """Runs no action: answers from the index, or says that it is unknown."""

    network: DenseNetwork
    root: SnapshotId
    validation_images: int
    index: ActionIndex

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """The outcome that is remembered.

        Raises:
            UnknownError: none is.
            DivergedError: it failed where it was carried out.
        """
        key = key_of(snapshot, action)
        record = self.index.known(key)
        if record is None:
            raise UnknownError(key, snapshot)
        if record.outcome is None:
            raise DivergedError(record.failure)
        return record.outcome


@dataclass(frozen=True)
class DryRun:
    """A trial as far as it is known.

    Attributes:
        state: after the last step of which everything is known.
        next: the first action that nobody has carried out; None where the trial has ended.
        position: the snapshot that action starts from; the last one where the trial has ended.
    """

    state: PipelineState
    next: Key | None
    position: SnapshotId


def run_dry(pipeline: Pipeline, state: PipelineState, preparation: Preparation, known: Executor) -> DryRun:
    """Go on from `state` as far as what is remembered reaches."""
    while not pipeline.is_done(known, state):
        try:
            state = pipeline.advance(known, state, preparation)
        except UnknownError as unknown:
            return DryRun(state, unknown.key, unknown.snapshot)
        except DivergedError:
            return DryRun(state, None, state.snapshot)
    return DryRun(state, None, state.snapshot)
