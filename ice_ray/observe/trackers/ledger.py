"""Which runs of a tracker's belong to a run of ours, in its folder: a job that is gone on with goes on in them."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass

from ice_ray.address import StoragePath
from ice_ray.errors import StorageError
from ice_ray.files import write_json


@dataclass
class Entry:
    """One of them.

    Attributes:
        id: ours, by which the tracker finds it again; 8 letters and digits.
        told: the last step that it was told of.
        measured: whether it was told of its results.
        ended: whether it was told that there will be no more.
    """

    id: str
    told: int = 0
    measured: bool = False
    ended: bool = False


class Ledger:
    """The file, one for a tracker. It is written before a run begins, so none is ever without its entry.

    A log for people must not cost the run: what cannot be read or written is left out.

    Args:
        whole: what had not ended is told anew from its first step, by a tracker that may lose what it was told last.
    """

    def __init__(self, path: StoragePath, whole: bool = False) -> None:
        self._path = path
        self._entries = _read(path)
        for entry in self._entries.values():
            if whole and not entry.ended:
                entry.told, entry.measured = 0, False

    def entry(self, name: str) -> Entry:
        """Of the run of that name, made where there is none."""
        if name not in self._entries:
            self._entries[name] = Entry(uuid.uuid4().hex[:8])
            self.write()
        return self._entries[name]

    def has_ended(self, name: str) -> bool:
        """Whether there is one that was told of all."""
        return name in self._entries and self._entries[name].ended

    def write(self) -> None:
        """Keep how far the runs have been told."""
        with suppress(OSError, StorageError):
            write_json(self._path, {name: asdict(entry) for name, entry in self._entries.items()})


def _read(path: StoragePath) -> dict[str, Entry]:
    with suppress(OSError, StorageError, ValueError, TypeError, AttributeError, KeyError):
        found = {
            str(name): Entry(str(entry["id"]), int(entry["told"]), bool(entry["measured"]), bool(entry["ended"]))
            for name, entry in json.loads(path.read_text()).items()
        }
        if all(entry.id.isalnum() for entry in found.values()):
            return found
    return {}
