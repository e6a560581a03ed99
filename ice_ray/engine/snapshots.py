"""Snapshots: a network at one point of a run, immutable, named by its history; in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from ice_ray.address import StoragePath, storage_path
from ice_ray.engine.actions import SnapshotId
from ice_ray.errors import RunError
from ice_ray.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class Snapshot:
    """A pruned network's content.

    Attributes:
        id: digest of its history.
        kept: by layer that owns filters of a unit, which of the dense network's are left.
        tensors: its state dict, on the CPU.
    """

    id: SnapshotId
    kept: dict[str, tuple[int, ...]]
    tensors: dict[str, Tensor]

    def save(self, path: Path | StoragePath) -> None:
        """Write a safetensors file, under a temporary name first."""
        write_tensors(path, self.tensors, {"id": self.id, "kept": json.dumps(self.kept)})

    @classmethod
    def load(cls, path: Path | StoragePath) -> Snapshot:
        """Read what `save` wrote.

        Raises:
            RunError: the file is missing, cut short or not a snapshot.
        """
        try:
            with storage_path(path).on_disk() as own:
                tensors, metadata = read_tensors(own)
            kept = {layer: tuple(filters) for layer, filters in json.loads(metadata["kept"]).items()}
            return cls(metadata["id"], kept, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"snapshot '{path}' cannot be read ({error})") from error


class SnapshotStore:
    """Committed snapshots by id, in memory."""

    def __init__(self) -> None:
        self._snapshots: dict[SnapshotId, Snapshot] = {}

    def put(self, snapshot: Snapshot) -> None:
        """Keep a snapshot."""
        self._snapshots[snapshot.id] = snapshot

    def __contains__(self, snapshot: object) -> bool:
        return snapshot in self._snapshots

    def get(self, snapshot: SnapshotId) -> Snapshot:
        """The snapshot of that id.

        Raises:
            RunError: it was never committed, or has been dropped.
        """
        if snapshot not in self._snapshots:
            raise RunError(f"snapshot {snapshot} is not in the store")
        return self._snapshots[snapshot]

    def keep_only(self, ids: Iterable[SnapshotId]) -> None:
        """Drop all others."""
        wanted = set(ids)
        self._snapshots = {id: snapshot for id, snapshot in self._snapshots.items() if id in wanted}
