"""The Tune run of stage 1, from grid points to results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ice_ray.cluster.workload import Workload
from ice_ray.engine.cost import Clock
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import Candidate, Choice, Objective, choose
from ice_ray.pipelines.records import PipelineState, StepRecord
from ice_ray.search.config import SearchConfig
from ice_ray.search.prepare import SearchPreparation
from ice_ray.search.trial import PruningTrial

EXPERIMENT = "search"


@dataclass(frozen=True)
class TrialResult:
    """What became of one grid point.

    Attributes:
        index: position in the order of trials.
        records: its pruning steps; all of them where it finished.
        failure: why it did not finish, empty where it did.
        node: host it ran on.
    """

    index: int
    hyperparameters: Hyperparameters
    records: tuple[StepRecord, ...]
    failure: str
    node: str

    def pruning_seconds(self, clock: Clock, flops_per_second: float) -> float:
        """PT of eq. 2."""
        return PipelineState("", self.records).pruning_seconds(clock, flops_per_second)

    @property
    def drop(self) -> float:
        """Eq. 3 after the last step."""
        return self.records[-1].drop


def run_search(
    points: Sequence[Hyperparameters],
    workload: Workload,
    prepared: SearchPreparation,
    config: SearchConfig,
    gpus: float,
    folder: Path,
    callbacks: list[tune.Callback],
) -> tuple[TrialResult, ...]:
    """Run every point as a Tune trial, below `folder`/search; goes on with what an interrupted run left there.

    Results are in the order of `points`. No trial's failure ends the search. `callbacks` are pickled by Tune with
    the experiment and come back with it when it is restored.
    """
    trainable = tune.with_resources(
        tune.with_parameters(
            PruningTrial, workload=workload, prepared=prepared, clock=config.clock, cpus=config.cpus, gpus=gpus
        ),
        {"cpu": config.cpus, "gpu": gpus},
    )
    path = folder / EXPERIMENT
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable=trainable, resume_unfinished=True, resume_errored=True)
    else:
        tuner = _new_tuner(trainable, points, config, folder, callbacks)
    grid = tuner.fit()
    results = [_result(grid[position]) for position in range(len(grid))]
    found = {result.index: result for result in results if result is not None}
    return tuple(
        found.get(index, TrialResult(index, point, (), "the trial left no result", ""))
        for index, point in enumerate(points)
    )


def choose_winner(
    results: Sequence[TrialResult], objective: Objective, clock: Clock, flops_per_second: float
) -> Choice:
    """The winner among the trials that finished.

    Raises:
        RunError: none did.
    """
    finished = [result for result in results if not result.failure]
    candidates = [
        Candidate(result.index, result.pruning_seconds(clock, flops_per_second), result.drop) for result in finished
    ]
    return choose(candidates, objective)


def _new_tuner(
    trainable: Any,
    points: Sequence[Hyperparameters],
    config: SearchConfig,
    folder: Path,
    callbacks: list[tune.Callback],
) -> tune.Tuner:
    grid = [{"index": index, "hyperparameters": point.as_dict()} for index, point in enumerate(points)]
    return tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(grid)},
        tune_config=tune.TuneConfig(
            reuse_actors=True, trial_name_creator=_trial_name, trial_dirname_creator=_trial_name
        ),
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=str(folder),
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
            callbacks=callbacks,
            verbose=0,
        ),
    )


def _result(found: tune.Result) -> TrialResult | None:
    if not found.config:
        return None
    point = found.config["point"]
    metrics = found.metrics or {}
    failure = str(metrics.get("failure", "")) or (_last_line(found.error) if found.error else "")
    if not failure and not metrics.get("records"):
        failure = "the trial ended early"
    return TrialResult(
        index=point["index"],
        hyperparameters=Hyperparameters.from_mapping(point["hyperparameters"]),
        records=tuple(StepRecord(**record) for record in metrics.get("records", [])),
        failure=failure,
        node=str(metrics.get("hostname", "")),
    )


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _trial_name(trial: Trial) -> str:
    return trial_name(trial.config["point"]["index"])


def trial_name(index: int) -> str:
    """What a trial is called, in folders and in TensorBoard."""
    return f"trial-{index:03d}"
