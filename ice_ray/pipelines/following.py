"""How far a trial's course is known, from what is remembered alone: nothing is carried out."""

from __future__ import annotations

from dataclasses import dataclass

from ice_ray.engine.actions import Action, Outcome, SnapshotId
from ice_ray.engine.memory import Key, MemoryIndex, key_of
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.runner import Runner
from ice_ray.errors import DivergedError
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState, Preparation


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
    decision_images: int
    index: MemoryIndex

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """The outcome that is remembered.

        Raises:
            UnknownError: none is.
            DivergedError: it failed where it was carried out.
        """
        key = key_of(snapshot, action)
        deed = self.index.known(key)
        if deed is None:
            raise UnknownError(key, snapshot)
        if deed.outcome is None:
            raise DivergedError(deed.failure)
        return deed.outcome


@dataclass(frozen=True)
class Course:
    """A trial as far as it is known.

    Attributes:
        state: after the last step of which everything is known.
        next: the first action that nobody has carried out; None where the trial has ended.
        position: the snapshot that action starts from; the last one where the trial has ended.
    """

    state: PipelineState
    next: Key | None
    position: SnapshotId


def follow(pipeline: Pipeline, state: PipelineState, preparation: Preparation, known: Runner) -> Course:
    """Go on from `state` as far as what is remembered reaches."""
    while not pipeline.is_done(known, state):
        try:
            state = pipeline.advance(known, state, preparation)
        except UnknownError as unknown:
            return Course(state, unknown.key, unknown.snapshot)
        except DivergedError:
            return Course(state, None, state.snapshot)
    return Course(state, None, state.snapshot)
