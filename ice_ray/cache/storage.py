"""What the action cache keeps on the run's storage: a log of actions, and the networks that they led to."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ice_ray.address import StoragePath, storage_path
from ice_ray.cache.actions import ActionRecord
from ice_ray.engine.actions import Action, EarlyStopping, FineTuned, Measured, Outcome, SnapshotId
from ice_ray.engine.cost import Cost
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.threshold import Threshold
from ice_ray.errors import RunError
from ice_ray.repair.repair import Repaired
from ice_ray.training.schedules.retraining import Replayed, WarmCosine

_PARTS = (EarlyStopping, Cost, ActionRecord, Measured, Outcome, FineTuned, Repaired, Replayed, Threshold, WarmCosine)
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*get_args(Action), *_PARTS)}


class ActionLog:
    """A file that one process appends to. Lines that are damaged, or that a killed process left unfinished, are
    skipped.
    """

    def __init__(self, path: Path | StoragePath) -> None:
        self._path = storage_path(path)

    def load(self) -> list[ActionRecord]:
        """All whole records, in the order in which they were written."""
        found = (_parsed(line) for line in self._path.lines())
        return [record for record in found if record is not None]

    def append(self, record: ActionRecord) -> None:
        """Write a record; it outlives this process at once."""
        self._path.parent.make_folder()
        self._path.append_line(json.dumps(_plain(record)))


def _parsed(line: str) -> ActionRecord | None:
    try:
        record = _typed(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if isinstance(record, ActionRecord) else None


def _plain(value: Any) -> Any:
    """As JSON; what JSON does not have is an object of one key, which names the kind."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {type(value).__name__: fields}
    if isinstance(value, Tensor):
        return {"tensor": value.float().tolist()}  # every float32 is some number of JSON's, and comes back from it
    if isinstance(value, dict):
        return {"map": {key: _plain(each) for key, each in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(each) for each in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return torch.tensor(content, dtype=torch.float32)
    if kind == "map":
        return {key: _typed(each) for key, each in content.items()}
    return _KINDS[kind](**{name: _typed(each) for name, each in content.items()})


_SUFFIX = ".safetensors"


class NetworkFiles:
    """A folder of networks, a safetensors file each, named by their snapshot. Files are whole or absent; a network
    whose file is gone can be made again from its history.
    """

    def __init__(self, folder: Path | StoragePath) -> None:
        self._folder = storage_path(folder)

    def save(self, snapshot: Snapshot) -> None:
        self._folder.make_folder()
        snapshot.save(self._path(snapshot.id))

    def load(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network, or None where it is absent or cannot be read."""
        try:
            return Snapshot.load(self._path(snapshot))
        except RunError:
            return None

    def holds(self, snapshot: SnapshotId) -> bool:
        """Whether there is a file, which may be damaged."""
        return self._path(snapshot).is_file()

    def sizes(self) -> dict[SnapshotId, int]:
        """Bytes of each file."""
        own = {name: size for name, size in self._folder.sizes().items() if name.endswith(_SUFFIX)}
        return {name.removesuffix(_SUFFIX): size for name, size in own.items() if not name.startswith(".")}

    def remove(self, snapshot: SnapshotId) -> None:
        with suppress(OSError):  # a folder that refuses it for a moment keeps a file too many, nothing worse
            self._path(snapshot).unlink(missing_ok=True)

    def clear(self) -> None:
        self._folder.remove_folder()

    def _path(self, snapshot: SnapshotId) -> StoragePath:
        return self._folder / f"{snapshot}{_SUFFIX}"
