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
from ice_ray.errors import RunError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objective import Candidate, Choice, Objective, choose
from ice_ray.pipelines.records import PipelineState, StepRecord
from ice_ray.search.config import SearchConfig
from ice_ray.search.prepare import SearchPreparation
from ice_ray.search.trial import PruningTrial
from ice_ray.search.trial_store import TrialProgress, TrialStore, trial_name

EXPERIMENT, STATES = "tune", "search"


@dataclass(frozen=True)
class TrialResult:
    """What became of one grid point.

    Attributes:
        index: position in the order of trials.
        records: its whole pruning steps; all of them where it finished.
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
    """Run every point as a Tune trial, below `folder`; goes on with what an interrupted run left there.

    Results are in the order of `points`. No trial's failure ends the search.

    Raises:
        RunError: interrupted before every trial had ended.
    """
    store = TrialStore(folder / STATES)
    open_points = [index for index in range(len(points)) if not _has_ended(store, index)]
    died: dict[int, str] = {}
    if open_points:
        trainable = tune.with_resources(
            tune.with_parameters(
                PruningTrial,
                workload=workload,
                prepared=prepared,
                store=store,
                clock=config.clock,
                cpus=config.cpus,
                gpus=gpus,
            ),
            {"cpu": config.cpus, "gpu": gpus},
        )
        grid = _tuner(trainable, points, open_points, config, folder, callbacks).fit()
        ended = [grid[position] for position in range(len(grid))]
        died = {
            found.config["point"]["index"]: _last_line(found.error) for found in ended if found.error and found.config
        }
    return tuple(_result(index, point, store.load(index), died.get(index, "")) for index, point in enumerate(points))


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


def _tuner(
    trainable: Any,
    points: Sequence[Hyperparameters],
    indices: Sequence[int],
    config: SearchConfig,
    folder: Path,
    callbacks: list[tune.Callback],
) -> tune.Tuner:
    grid = [{"index": index, "hyperparameters": points[index].as_dict()} for index in indices]
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
            # Trials keep their own progress (TrialStore); Tune has nothing to save.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=callbacks,
            verbose=0,
        ),
    )


def _has_ended(store: TrialStore, index: int) -> bool:
    progress = store.load(index)
    return progress is not None and progress.has_ended


def _result(index: int, point: Hyperparameters, progress: TrialProgress | None, death: str) -> TrialResult:
    if progress is not None and progress.has_ended:
        return TrialResult(index, point, progress.state.records, progress.failure, progress.node)
    if not death:
        raise RunError("the search was interrupted before every trial had ended")
    records, node = (progress.state.records, progress.node) if progress else ((), "")
    return TrialResult(index, point, records, f"its process died too often: {death}", node)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _trial_name(trial: Trial) -> str:
    return trial_name(trial.config["point"]["index"])
