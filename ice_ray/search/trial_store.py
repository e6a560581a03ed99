"""Where trials stand, on the run's own storage: what a restarted trial, and a resumed search, go on from.

Tune's experiment state is written every ten seconds or so and may name checkpoints that have been deleted since; this
is written after every step, before the step is reported, and is all that is read back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ice_ray.engine.executor import Executor
from ice_ray.engine.snapshots import Snapshot
from ice_ray.files import write_json
from ice_ray.pipelines.records import PipelineState

_STATE = "state.json"


@dataclass(frozen=True)
class TrialProgress:
    """Where one trial stands.

    Attributes:
        state: the pipeline's, after its last whole step.
        finished: whether every step has been taken.
        failure: why it can never finish (a diverged loss, no memory), else empty.
        node: host it ran on.
    """

    state: PipelineState
    finished: bool = False
    failure: str = ""
    node: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to run."""
        return self.finished or bool(self.failure)


class TrialStore:
    """The progress of every trial of a search, a folder each, below one that all nodes see."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, index: int, progress: TrialProgress, executor: Executor) -> None:
        """Write a trial's progress, and its network where it is still to be pruned further.

        The network goes first, under its own name, so that a reader finds whatever network the state names.
        """
        folder = self._of(index)
        folder.mkdir(parents=True, exist_ok=True)
        network = folder / f"{progress.state.snapshot}.safetensors"
        goes_on = bool(progress.state.records) and not progress.has_ended
        if goes_on:
            executor.commit(progress.state.snapshot).save(network)
            executor.store.keep_only(())
        content = {
            "state": json.loads(progress.state.to_json()),
            "finished": progress.finished,
            "failure": progress.failure,
            "node": progress.node,
        }
        write_json(folder / _STATE, content)
        for old in folder.glob("*.safetensors"):
            if old != network or not goes_on:
                old.unlink(missing_ok=True)

    def load(self, index: int) -> TrialProgress | None:
        """A trial's progress; None where it has not taken a step."""
        path = self._of(index) / _STATE
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        content["state"] = PipelineState.from_json(json.dumps(content["state"]))
        return TrialProgress(**content)

    def load_network(self, index: int, state: PipelineState) -> Snapshot:
        """The network that an unfinished trial's state names.

        Raises:
            RunError: it cannot be read.
        """
        return Snapshot.load(self._of(index) / f"{state.snapshot}.safetensors")

    def _of(self, index: int) -> Path:
        return self._folder / trial_name(index)


def trial_name(index: int) -> str:
    """What a trial is called, in folders and in TensorBoard."""
    return f"trial-{index:03d}"
