"""What carries out actions, as pipelines see it."""

from __future__ import annotations

from typing import Protocol

from ice_ray.engine.actions import Action, Outcome, SnapshotId
from ice_ray.engine.network import DenseNetwork


class Executor(Protocol):
    """Maps (snapshot, action) to an outcome: an executor, or one that remembers."""

    @property
    def network(self) -> DenseNetwork:
        """The dense network."""

    @property
    def root(self) -> SnapshotId:
        """Its snapshot: nothing pruned yet."""

    @property
    def validation_images(self) -> int:
        """How many images decide."""

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """Carry out one action on a snapshot.

        Raises:
            TrialFailure: the fine-tune diverged or ran out of memory.
        """
