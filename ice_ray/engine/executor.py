"""The interface by which pipelines have actions carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ice_ray.engine.actions import Action, Outcome, SnapshotId

if TYPE_CHECKING:
    from ice_ray.engine.network import DenseNetwork


class Executor(Protocol):
    """Maps (snapshot, action) to an outcome."""

    @property
    def network(self) -> DenseNetwork:
        """The dense network."""

    @property
    def root(self) -> SnapshotId:
        """The snapshot of the dense network."""

    @property
    def validation_images(self) -> int:
        """The number of validation images."""

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """Carry out one action on a snapshot.

        Raises:
            TrialFailure: the fine-tune diverged or ran out of memory.
        """
