"""A stage 2 checkpoint: the network's snapshot, the pipeline's state, what it was prepared with. No code in it."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from ice_ray.engine.executor import Executor
from ice_ray.engine.snapshots import Snapshot
from ice_ray.files import write_json
from ice_ray.pipelines.records import PipelineState, Preparation

_SNAPSHOT, _PROGRESS = "snapshot.safetensors", "progress.json"


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

    def save(self, folder: Path, executor: Executor) -> ReplayProgress:
        """Write snapshot and progress into `folder`; returns the progress with the time this took added."""
        started = time.perf_counter()
        executor.commit(self.state.snapshot).save(folder / _SNAPSHOT)
        executor.store.keep_only(self.state.kept)
        for number, snapshot in enumerate(self.state.kept):
            executor.store.get(snapshot).save(folder / _kept(number))
        content = dataclasses.asdict(self) | {"state": json.loads(self.state.to_json())}
        write_json(folder / _PROGRESS, content)
        return dataclasses.replace(self, checkpoint_seconds=self.checkpoint_seconds + time.perf_counter() - started)

    @classmethod
    def load(cls, folder: Path) -> tuple[ReplayProgress, Snapshot, tuple[Snapshot, ...]]:
        """What `save` wrote: the progress, its network, and those that the pipeline may go back to."""
        content = json.loads((folder / _PROGRESS).read_text())
        content["state"] = PipelineState.from_json(json.dumps(content["state"]))
        content["preparation"] = Preparation.from_dict(content["preparation"])
        progress = cls(**content)
        kept = tuple(Snapshot.load(folder / _kept(number)) for number in range(len(progress.state.kept)))
        return progress, Snapshot.load(folder / _SNAPSHOT), kept


def _kept(number: int) -> str:
    return f"kept-{number}.safetensors"
