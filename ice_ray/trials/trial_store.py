"""Where trials stand, on the run's own storage: what a restarted trial, and a resumed search, go on from.

Tune's experiment state is written every ten seconds or so and may name checkpoints that have been deleted since; this
is written after every step, before the step is reported, and is all that is read back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ice_ray.address import StoragePath, storage_path
from ice_ray.files import write_json
from ice_ray.pipelines.records import PipelineState


@dataclass(frozen=True)
class TrialProgress:
    """Where one trial stands.

    Attributes:
        state: the pipeline's, after its last whole step.
        inherited: of each step, whether nothing of it was carried out for this trial.
        has_worked: whether something of the step after them has been.
        finished: whether every step has been taken.
        failure: why it can never finish (a diverged loss, no memory), else empty.
        node: host it ran on.
        device: of that host, for people.
    """

    state: PipelineState
    inherited: tuple[bool, ...] = ()
    has_worked: bool = False
    finished: bool = False
    failure: str = ""
    node: str = ""
    device: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to run."""
        return self.finished or bool(self.failure)


class TrialStore:
    """The progress of every trial of a search, a file each, below a folder that all nodes see. Networks are kept in the
    action cache.
    """

    def __init__(self, folder: Path | StoragePath) -> None:
        self._folder = storage_path(folder)

    def save(self, index: int, progress: TrialProgress) -> None:
        self._folder.make_folder()
        content = {**vars(progress), "state": json.loads(progress.state.to_json())}
        write_json(self._of(index), content)

    def load(self, index: int) -> TrialProgress | None:
        """A trial's progress; None where it has not taken a step, or what is there cannot be read: it begins anew then,
        and what it had done is remembered.
        """
        return _read(self._of(index))

    def drop_damaged(self, index: int) -> bool:
        """Remove the file of a trial where it cannot be read; returns whether it was removed."""
        path = self._of(index)
        damaged = path.is_file() and _read(path) is None
        if damaged:
            path.unlink(missing_ok=True)
        return damaged

    def _of(self, index: int) -> StoragePath:
        return self._folder / f"{trial_name(index)}.json"


def _read(path: StoragePath) -> TrialProgress | None:
    try:
        content = json.loads(path.read_text())
        state, inherited = PipelineState.from_json(json.dumps(content["state"])), tuple(content["inherited"])
        return TrialProgress(**{**content, "state": state, "inherited": inherited})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def trial_name(index: int) -> str:
    """What a trial is called, in folders and in TensorBoard."""
    return f"trial-{index:03d}"
