"""A stage 2 checkpoint: the network's snapshot, the pipeline's state, what it was prepared with. No code in it.

Ray Train keeps a list of checkpoints, written in place, and takes what it names on trust. Here the folder itself is
looked at: what counts is which checkpoints can be read, whole.

In a folder a checkpoint is written beside and renamed. At an address it is written on this machine and put there file
by file, last the one that holds the digests of the others: without it there is no checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ice_ray.address import StoragePath, storage_path
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import RunError
from ice_ray.files import sha256, write_json
from ice_ray.pipelines.records import PipelineState, Preparation

_SNAPSHOT, _PROGRESS = "snapshot.safetensors", "progress.json"
_CHECKPOINT, _UNFINISHED = "checkpoint_", ".unfinished-"
_TRAINS_OWN_LIST = "checkpoint_manager_snapshot.json"
KEPT = 2


@dataclass(frozen=True)
class ReplayProgress:
    """Where a replay stands.

    Attributes:
        state: the pipeline's.
        preparation: original accuracy and probe, on stage 2's own data.
        finished: whether the final epochs, if any, are done too.
        retrained: whether those changed the network since its last measurement.
        setup_seconds, warm_up_seconds, checkpoint_seconds, final_seconds: wall time that is no part of PT.
    """

    state: PipelineState
    preparation: Preparation
    finished: bool = False
    retrained: bool = False
    setup_seconds: float = 0.0
    warm_up_seconds: float = 0.0
    checkpoint_seconds: float = 0.0
    final_seconds: float = 0.0

    def save(self, folder: Path, executor: TorchExecutor) -> ReplayProgress:
        """Write snapshot and progress into `folder`; returns the progress with the time this took added."""
        started = time.perf_counter()
        executor.commit(self.state.snapshot).save(folder / _SNAPSHOT)
        executor.store.keep_only(self.state.kept)
        for number, snapshot in enumerate(self.state.kept):
            executor.store.get(snapshot).save(folder / _kept(number))
        digests = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
        content = dataclasses.asdict(self) | {"state": json.loads(self.state.to_json()), "sha256": digests}
        write_json(folder / _PROGRESS, content)
        return dataclasses.replace(self, checkpoint_seconds=self.checkpoint_seconds + time.perf_counter() - started)

    @classmethod
    def load(cls, path: Path | StoragePath) -> tuple[ReplayProgress, Snapshot, tuple[Snapshot, ...]]:
        """What `save` wrote: the progress, its network, and those that the pipeline may go back to.

        Raises:
            RunError: a file is missing, cut short or not what was written.
        """
        with storage_path(path).on_disk() as folder:
            progress = cls._read(folder, storage_path(path))
            kept = tuple(Snapshot.load(folder / _kept(number)) for number in range(len(progress.state.kept)))
            return progress, Snapshot.load(folder / _SNAPSHOT), kept

    @classmethod
    def _read(cls, folder: Path, path: StoragePath) -> ReplayProgress:
        try:
            content = json.loads((folder / _PROGRESS).read_text())
            for name, digest in content.pop("sha256").items():
                if sha256(folder / name) != digest:
                    raise RunError(f"'{path / name}' is not what was written")
            content["state"] = PipelineState.from_json(json.dumps(content["state"]))
            content["preparation"] = Preparation.from_dict(content["preparation"])
            return cls(**content)
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"checkpoint '{path}' cannot be read ({type(error).__name__}: {error})") from error


class Checkpoints:
    """Those of one replay, a folder each, on storage that all nodes see."""

    def __init__(self, folder: Path | StoragePath) -> None:
        self._folder = storage_path(folder)

    def begin(self, step: int) -> Path:
        """An empty folder that a checkpoint is to be written into, under a name that counts for none."""
        return self._folder.stage(f"{_UNFINISHED}{step}")

    def finish(self, unfinished: Path, name: str) -> StoragePath:
        """What was begun is whole: give it its name."""
        return self._folder.install(unfinished, name, last=_PROGRESS)

    def named(self, name: str) -> StoragePath:
        """Where the checkpoint of that name is."""
        return self._folder / name

    def newest(self) -> tuple[StoragePath | None, list[StoragePath]]:
        """The one that is furthest on of those that can be read, and those that cannot."""
        whole, damaged = self._sorted()
        return (whole[-1] if whole else None), damaged

    def tidy(self) -> list[StoragePath]:
        """Before a Train run: drop what cannot be read, what was not finished, all but the newest, and Train's own list
        of them, which may name what is gone. Returns what could not be read.
        """
        whole, damaged = self._sorted()
        for path in (*damaged, *whole[:-KEPT], *self._unfinished()):
            path.remove_folder()
        (self._folder / _TRAINS_OWN_LIST).unlink(missing_ok=True)
        return damaged

    def _named(self) -> list[StoragePath]:
        return [path for path in self._folder.glob(f"{_CHECKPOINT}*") if path.is_dir()]

    def _unfinished(self) -> list[StoragePath]:
        """What was begun and never will be a checkpoint."""
        return self._folder.unfinished(_UNFINISHED, _CHECKPOINT, last=_PROGRESS)

    def _sorted(self) -> tuple[list[StoragePath], list[StoragePath]]:
        found, damaged = dict[StoragePath, tuple[bool, int]](), []
        unfinished = self._unfinished()
        for path in sorted((path for path in self._named() if path not in unfinished), key=str):
            try:
                progress, _, _ = ReplayProgress.load(path)
                found[path] = progress.finished, len(progress.state.records)
            except RunError:
                damaged.append(path)
        return sorted(found, key=lambda path: found[path]), damaged


def _kept(number: int) -> str:
    return f"kept-{number}.safetensors"
