"""A trial: a Ray actor that runs the pruning-fine-tuning operator, a pruning step at a time."""

from __future__ import annotations

import platform
from typing import Any

from ray import tune

from ice_ray.cluster.workload import Workload, own_device
from ice_ray.engine.cost import Clock
from ice_ray.errors import TrialFailure
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import normalized_cost
from ice_ray.pipelines.records import PipelineState
from ice_ray.pipelines.registry import build_pipeline
from ice_ray.search.prepare import SearchPreparation
from ice_ray.search.trial_store import TrialProgress, TrialStore


class PruningTrial(tune.Trainable):
    """Takes one pruning step per `step()`; kept alive between trials, with the dense model and the images in place.

    Every report holds the step's record, `pruning_seconds` and `cost_so_far` on the search's clock; the last one also
    `cost` (eq. 2). A fault that belongs to the hyperparameters (a diverged loss, no memory) ends the trial with
    `failure` in words instead. A trial that is started again goes on from its last step in the store.
    """

    _state: PipelineState

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        workload: Workload,
        prepared: SearchPreparation,
        store: TrialStore,
        clock: Clock,
        cpus: float,
        gpus: float,
    ) -> None:
        self._workload, self._prepared, self._store, self._clock = workload, prepared, store, clock
        self._executor = workload.executor(own_device(cpus, gpus))
        self._executor.warm_up()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._pipeline.is_done(self._executor, self._state):
            return self._report()  # its process died between the last step and the report of it
        try:
            self._state = self._pipeline.advance(self._executor, self._state, self._prepared.preparation)
        except TrialFailure as fault:
            self._save(TrialProgress(self._state, failure=str(fault), node=platform.node()))
            return {"done": True, "failure": str(fault)}
        finished = self._pipeline.is_done(self._executor, self._state)
        self._save(TrialProgress(self._state, finished=finished, node=platform.node()))
        return self._report()

    def _report(self) -> dict[str, Any]:
        record = self._state.records[-1]
        seconds = self._state.pruning_seconds(self._clock, self._prepared.flops_per_second)
        cost = normalized_cost(seconds, record.drop)
        report = {**record.as_dict(), "pruning_seconds": seconds, "cost_so_far": cost, "done": False}
        if self._pipeline.is_done(self._executor, self._state):
            report |= {"done": True, "cost": cost, "failure": ""}
        return report

    def _begin(self, config: dict[str, Any]) -> None:
        self._index = config["point"]["index"]
        hyperparameters = Hyperparameters.from_mapping(config["point"]["hyperparameters"])
        self._pipeline = build_pipeline(self._workload.settings, hyperparameters)
        self._state = self._pipeline.begin(self._executor)
        progress = self._store.load(self._index)
        if progress is not None and progress.state.records:
            self._state = progress.state
            if not progress.has_ended:
                self._executor.store.put(self._store.load_network(self._index, self._state))

    def _save(self, progress: TrialProgress) -> None:
        self._store.save(self._index, progress, self._executor)
