"""The fault log of a run, on its own storage: a line for each fault that it went on after."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import StorageError
from ice_ray.retry import retries_that_helped

Kind = Literal[
    "trial restart",  # its process died, or its node
    "action cache restart",  # the process that knows what all trials remember
    "worker restart",  # the group of stage 2
    "controller restart",  # the process that watches over that group
    "messenger restart",  # the process that the group tells how far it is
    "resumption",  # the job itself, gone on with
    "damaged file",  # one that a run wrote and that could not be read again
    "storage retry",  # what the storage refused at first
]


@dataclass(frozen=True)
class FaultLog:
    """The faults of a run, those of its earlier parts included.

    Attributes:
        path: the file, which is only ever appended to.
    """

    path: StoragePath

    @classmethod
    def of(cls, folder: Path | StoragePath) -> FaultLog:
        """Of the run in that folder."""
        return cls(storage_path(folder) / "faults.jsonl")

    def note(self, kind: Kind, what: str = "", times: int = 1) -> None:
        """Add one fault, or several of a kind. A note that cannot be written does not end the run."""
        line = {"kind": kind, "what": what, "times": times, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        with suppress(OSError, StorageError):
            self.path.append_line(json.dumps(line))

    def note_retries(self) -> None:
        """Add the retries that this process needed since the last call."""
        if times := retries_that_helped():
            self.note("storage retry", times=times)

    def counts(self) -> dict[str, int]:
        """How many of each kind, in the order in which they first came."""
        found = Counter[str]()
        for line in self.path.lines():
            with suppress(ValueError, KeyError, TypeError):
                each = json.loads(line)
                found[str(each["kind"])] += int(each["times"])
        return dict(found)

    def __str__(self) -> str:
        return ", ".join(f"{count} {_plural(kind) if count > 1 else kind}" for kind, count in self.counts().items())


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("ry") else f"{kind}s"
