"""A trial: a Ray actor that runs the pruning-fine-tuning operator, a pruning step at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from ice_ray.cluster.workload import Workload, own_device
from ice_ray.engine.cost import Clock
from ice_ray.engine.snapshots import Snapshot
from ice_ray.errors import TrialFailure
from ice_ray.files import atomic_path
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import normalized_cost
from ice_ray.pipelines.records import PipelineState
from ice_ray.search.prepare import SearchPreparation

_SNAPSHOT, _STATE = "snapshot.safetensors", "state.json"


class PruningTrial(tune.Trainable):
    """Takes one pruning step per `step()`; kept alive between trials, with the dense model and the images in place.

    Every report holds the step's record, `pruning_seconds` and `cost_so_far` on the search's clock; the last one
    `cost` (eq. 2) and all `records`. A fault that belongs to the hyperparameters (a diverged loss, no memory)
    ends the trial with `failure` in words instead.
    """

    _state: PipelineState

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        workload: Workload,
        prepared: SearchPreparation,
        clock: Clock,
        cpus: float,
        gpus: float,
    ) -> None:
        self._workload, self._prepared, self._clock = workload, prepared, clock
        self._executor = workload.executor(own_device(cpus, gpus))
        self._executor.warm_up()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            self._state = self._pipeline.advance(self._executor, self._state, self._prepared.preparation)
        except TrialFailure as fault:
            return {"done": True, "failure": str(fault), "records": self._records()}
        record = self._state.records[-1]
        seconds = self._state.pruning_seconds(self._clock, self._prepared.flops_per_second)
        report = {
            **record.as_dict(),
            "pruning_seconds": seconds,
            "cost_so_far": normalized_cost(seconds, record.drop),
            "done": False,
        }
        if self._pipeline.is_done(self._executor, self._state):
            report |= {"done": True, "cost": report["cost_so_far"], "failure": "", "records": self._records()}
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        folder = Path(checkpoint_dir)
        if self._state.records:
            self._executor.commit(self._state.snapshot).save(folder / _SNAPSHOT)
            self._executor.store.keep_only(())
        with atomic_path(folder / _STATE) as path:
            path.write_text(self._state.to_json())

    def load_checkpoint(self, checkpoint: dict[str, Any] | str | None) -> None:
        folder = Path(str(checkpoint))
        self._state = PipelineState.from_json((folder / _STATE).read_text())
        if self._state.records:
            self._executor.store.put(Snapshot.load(folder / _SNAPSHOT))

    def _begin(self, config: dict[str, Any]) -> None:
        hyperparameters = Hyperparameters.from_mapping(config["point"]["hyperparameters"])
        self._pipeline = self._workload.settings.pipeline(hyperparameters)
        self._state = self._pipeline.begin(self._executor)

    def _records(self) -> list[dict[str, Any]]:
        return [record.as_dict() for record in self._state.records]
