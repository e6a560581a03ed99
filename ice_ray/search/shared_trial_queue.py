"""The driver's side of sharing: what Tune's searcher and scheduler ask when a device is free."""

from __future__ import annotations

import time
from typing import Any

import ray

from ice_ray.cluster.capacity import placements
from ice_ray.cluster.workload import Workload
from ice_ray.engine.actions import SnapshotId, apart
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.search.action_cache import ActionCacheHandle
from ice_ray.search.config import SearchConfig
from ice_ray.search.prepare import SearchPreparation
from ice_ray.search.trial_queue import TrialQueue

_TIDY_SECONDS, _COUNT_SECONDS = 5.0, 1.0


class SharedTrialQueue:
    """The queue, kept up to date with what the trials have done; one for a search's searcher and scheduler together.

    Tune writes both of them down; of this nothing is worth that.
    """

    def __init__(
        self, queue: TrialQueue, cache: ActionCacheHandle, workload: Workload, config: SearchConfig, gpus: float
    ) -> None:
        self._queue, self._cache, self._workload = queue, cache, workload
        self._config, self._gpus = config, gpus
        self._tidied = self._counted = time.monotonic()
        self._fitting = placements(config.cpus, gpus)

    def add(self, index: int, point: Hyperparameters) -> None:
        """An open trial."""
        self._queue.add(index, self._workload.pipeline(point))

    def next(self) -> int | None:
        """The trial that a free device goes on with; None where there is none, or no trial that need not wait."""
        return self._choose() if self.has_place() else None

    def yields(self) -> bool:
        """Whether a trial that has to wait gives its device to another."""
        return self._choose() is not None

    def start(self, index: int) -> None:
        """The trial has a device."""
        self._queue.start(index)

    def pause(self, index: int) -> None:
        """The trial has given its device back."""
        self._queue.pause(index)

    def lose(self, index: int) -> None:
        """The trial's process is gone: what it was at is anybody's, and the trial is open."""
        self._queue.pause(index)
        self._cache.server.release.remote(owner_name(index))

    def end(self, index: int) -> None:
        """The trial is over."""
        self._queue.end(index)

    def tidy(self) -> None:
        """Now and then, let go of the networks that no open trial goes on from."""
        if time.monotonic() > self._tidied + _TIDY_SECONDS:
            self._learn()
            self._cache.server.keep_only.remote(self._queue.needed(), self._queue.told)
            self._tidied = time.monotonic()

    def has_place(self) -> bool:
        """Whether one more trial could run at once."""
        return self._queue.running < self._places()

    def _choose(self) -> int | None:
        self._learn()
        return self._queue.choose()

    def _learn(self) -> None:
        self._queue.learn(ray.get(self._cache.server.news.remote(self._queue.told)))

    def _places(self) -> int:
        """Trials that may run at once; nodes that join later count."""
        if time.monotonic() > self._counted + _COUNT_SECONDS:
            self._fitting, self._counted = placements(self._config.cpus, self._gpus), time.monotonic()
        fitting = max(1, self._fitting)
        return min(fitting, self._config.concurrent or fitting)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def root_of(index: int, prepared: SearchPreparation, config: SearchConfig) -> SnapshotId:
    """What a trial calls the dense network: as all others do, or where nothing is shared a name of its own."""
    return prepared.root if config.share_work else apart(prepared.root, owner_name(index))


def owner_name(index: int) -> str:
    """In whose name a trial claims what it is at."""
    return f"trial {index}"
