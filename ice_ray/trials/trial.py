"""A trial: a Ray actor that runs the pruning-fine-tuning operator, a pruning step at a time."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune

from ice_ray.cache.executor import CachingExecutor, TakenError
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.workload import Workload, device_name, own_device
from ice_ray.errors import ForgottenError, StorageError, TrialFailure, UserError
from ice_ray.guard import blaming
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.records import PipelineState
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.trials.action_cache import RemoteTeacherCache, SharedActionCache
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.prepare import SearchPreparation
from ice_ray.trials.reports import refusal_report, step_reports
from ice_ray.trials.trial_queue import owner_name
from ice_ray.trials.trial_store import TrialProgress, TrialStore

_WAIT_SECONDS, _LOOK_SECONDS = 2.0, 0.02


class PruningTrial(tune.Trainable):
    """Takes one pruning step per `step()`; kept alive between trials, with the dense model and the images in place.

    Every report holds the step's record, `pruning_seconds` and `cost_so_far` on the search's clock, and whether the
    step was `inherited`: nothing of it was carried out here. The last one also holds `cost` (eq. 2). A fault that
    belongs to the hyperparameters (a diverged loss, no memory) ends the trial with `failure` in words instead. A
    report of `waiting` alone: another trial is at the next action, and this one may give its device away. A report
    of `refused`: the storage took nothing any more, or the input is wrong, and no trial can go on. A trial that is
    started again goes on from its last step in the store.
    """

    _refusal: StorageError | UserError | None
    _pipeline: Pipeline
    _worker: CachingExecutor
    _state: PipelineState
    _inherited: tuple[bool, ...]
    _has_worked: bool
    _executed: int
    _began_anew: bool

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        workload: Workload,
        prepared: SearchPreparation,
        store: TrialStore,
        cache: SharedActionCache,
        search: SearchConfig,
        gpus: float,
    ) -> None:
        self._workload, self._prepared, self._store, self._search = workload, prepared, store, search
        self._cache, self._refusal = cache, None
        with self._refusing():
            self._set_up(config, gpus)

    def _set_up(self, config: dict[str, Any], gpus: float) -> None:
        workload, search = self._workload, self._search
        device = own_device(search.cpus, gpus)
        self._device = device_name(device)
        self._executor = workload.executor(device)
        self._executor.warm_up()
        self._fault_log = FaultLog.of(self._cache.folder.parent)
        if search.share_work:
            self._executor.fine_tuner.teacher_cache = RemoteTeacherCache(self._cache)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        with self._refusing():
            self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._refusal is None:
            with self._refusing():
                return self._known_step()
        self._cache.release()
        return refusal_report(self._refusal)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Keep a fault that ends every trial for the next report. Raised here, it would kill this process, which would
        be started again.
        """
        try:
            with blaming(self._workload.own_code):
                yield
        except (StorageError, UserError) as fault:
            self._refusal = fault

    def _known_step(self) -> dict[str, Any]:
        try:
            return self._step()
        except ForgottenError as fault:
            if self._began_anew:
                raise
            # What it stood on went with a damaged file. From the start on it is known, or made, again.
            self._fault_log.note("damaged file", str(fault))
            self._began_anew = True
            self._start_over()
            return {"waiting": "", "done": False}

    def _step(self) -> dict[str, Any]:
        if self._pipeline.is_done(self._worker, self._state):
            return self._report()  # its process died between the last step and the report of it
        self._wait()
        try:
            self._state = self._pipeline.advance(self._worker, self._state, self._prepared.preparation)
        except TakenError as taken:
            self._awaited = taken.key
            if self._works != self._has_worked:
                self._has_worked = self._works
                self._save(self._progress())
            return {"waiting": taken.key, "done": False}
        except TrialFailure as fault:
            self._save(self._progress(failure=str(fault)))
            return {"done": True, "failure": str(fault)}
        self._inherited = (*self._inherited, not self._works)
        self._executed, self._has_worked = self._worker.executed, False
        self._save(self._progress(finished=self._pipeline.is_done(self._worker, self._state)))
        return self._report()

    def _wait(self) -> None:
        """Wait here for a while, where the trial keeps its device though it reported that it waits."""
        ends, pause = time.monotonic() + _WAIT_SECONDS, _LOOK_SECONDS
        while self._awaited and time.monotonic() < ends and self._cache.is_taken(self._awaited):
            time.sleep(pause)
            pause *= 1.5  # many may be waiting, and all of them ask one process
        self._awaited = ""

    @property
    def _works(self) -> bool:
        """Whether anything of the step at hand has been carried out for this trial."""
        return self._has_worked or self._worker.executed > self._executed

    def _progress(self, **ended: Any) -> TrialProgress:
        begun = TrialProgress(self._state, self._inherited, self._has_worked, node=platform.node(), device=self._device)
        return dataclasses.replace(begun, **ended)

    def _report(self) -> dict[str, Any]:
        is_done = self._pipeline.is_done(self._worker, self._state)
        clock, speed = self._search.clock, self._prepared.flops_per_second
        return step_reports(self._state.records, is_done, clock, speed, self._inherited)[-1]

    def _begin(self, config: dict[str, Any]) -> None:
        self._index, self._awaited, self._began_anew = config["point"]["index"], "", False
        kind = pipeline_named(self._workload.settings.pipeline).Hyperparameters
        self._pipeline = self._workload.pipeline(kind.from_mapping(config["point"]["hyperparameters"]))
        self._cache.work_for(owner_name(self._index))
        self._executor.rename_root(self._prepared.root_of(self._index, self._search.share_work))
        self._start_over()
        progress = self._store.load(self._index)
        if progress is not None:
            self._has_worked = progress.has_worked
            if progress.state.records:
                self._state, self._inherited = progress.state, progress.inherited

    def _start_over(self) -> None:
        self._worker = CachingExecutor(self._executor, self._cache)
        self._state, self._inherited = self._pipeline.begin(self._worker), ()
        self._executed, self._has_worked = 0, False

    def _save(self, progress: TrialProgress) -> None:
        self._store.save(self._index, progress)
        self._fault_log.note_retries()
