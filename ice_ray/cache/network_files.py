"""Networks by the id of their snapshot, on storage that all nodes see, a safetensors file each."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ice_ray.address import StoragePath, storage_path
from ice_ray.engine.actions import SnapshotId
from ice_ray.engine.snapshots import Snapshot
from ice_ray.errors import RunError

_SUFFIX = ".safetensors"


class NetworkFiles:
    """A folder of them. A file is there whole or not at all; one that is gone can be made again from its history."""

    def __init__(self, folder: Path | StoragePath) -> None:
        self._folder = storage_path(folder)

    def save(self, snapshot: Snapshot) -> None:
        """Write one."""
        self._folder.make_folder()
        snapshot.save(self._path(snapshot.id))

    def load(self, snapshot: SnapshotId) -> Snapshot | None:
        """One of them; None where it is not there, or cannot be read."""
        try:
            return Snapshot.load(self._path(snapshot))
        except RunError:
            return None

    def holds(self, snapshot: SnapshotId) -> bool:
        """Whether there is a file of it, which may be damaged."""
        return self._path(snapshot).is_file()

    def sizes(self) -> dict[SnapshotId, int]:
        """Bytes of each."""
        own = {name: size for name, size in self._folder.sizes().items() if name.endswith(_SUFFIX)}
        return {name.removesuffix(_SUFFIX): size for name, size in own.items() if not name.startswith(".")}

    def remove(self, snapshot: SnapshotId) -> None:
        """Drop one, if it is there."""
        with suppress(OSError):  # a folder that refuses it for a moment keeps a file too many, nothing worse
            self._path(snapshot).unlink(missing_ok=True)

    def clear(self) -> None:
        """Drop all of them."""
        self._folder.remove_folder()

    def _path(self, snapshot: SnapshotId) -> StoragePath:
        return self._folder / f"{snapshot}{_SUFFIX}"
