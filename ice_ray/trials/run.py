"""The Tune run of stage 1, from points to results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ice_ray.address import StoragePath
from ice_ray.cache.actions import ActionRecord
from ice_ray.cluster.capacity import placements
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.faults import last_line
from ice_ray.cluster.session import as_told
from ice_ray.cluster.storage import rays_own
from ice_ray.cluster.workload import Workload
from ice_ray.engine.actions import FineTune
from ice_ray.engine.cost import Clock
from ice_ray.errors import RunError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objectives import Candidate, objective_named
from ice_ray.pipelines.base import RETRAINING_KEY
from ice_ray.pipelines.records import PipelineState, StepRecord, fine_tunes
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.trials.action_cache import Budget, SharedActionCache, action_log, clear_networks
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.prepare import SearchPreparation
from ice_ray.trials.proposals import PointLog, Proposals
from ice_ray.trials.searcher import SharingScheduler, TrialSearcher
from ice_ray.trials.trial import PruningTrial
from ice_ray.trials.trial_queue import TrialQueue
from ice_ray.trials.trial_store import TrialProgress, TrialStore, trial_name
from ice_ray.wording import counted

EXPERIMENT, STATES = "tune", "search"
_COUNT_SECONDS = 1.0


@dataclass(frozen=True)
class TrialResult:
    """What became of one trial.

    Attributes:
        index: position in the order of trials.
        records: its whole pruning steps; all of them where it finished.
        failure: why it did not finish, empty where it did.
        node: host it ran on, with its last step.
        device: of that host, for people.
        inherited: of each step, whether nothing of it was carried out for this trial.
    """

    index: int
    hyperparameters: Hyperparameters
    records: tuple[StepRecord, ...]
    failure: str
    node: str
    inherited: tuple[bool, ...] = ()
    device: str = ""

    def pruning_seconds(self, clock: Clock, flops_per_second: float) -> float:
        """PT of eq. 2."""
        return PipelineState("", self.records).pruning_seconds(clock, flops_per_second)

    @property
    def drop(self) -> float:
        """Eq. 3 after the last step."""
        return self.records[-1].drop


def run_search(
    proposals: Proposals,
    workload: Workload,
    prepared: SearchPreparation,
    config: SearchConfig,
    gpus: float,
    folder: StoragePath,
    callbacks: list[tune.Callback],
) -> tuple[TrialResult, ...]:
    """Run every proposal as a Tune trial, below `folder`; goes on with what an interrupted run left there.

    Results are in the order of the trials' indices. No trial's failure ends the search.

    Raises:
        RunError: interrupted before every trial had ended.
        StorageError: by storage that took nothing any more.
        UserError: what was left there began with other points; or as a trial raised it, for all would.
    """
    store, log = TrialStore(folder / STATES), point_log(folder, workload.settings.pipeline)
    fault_log = FaultLog.of(folder)
    log.begin(proposals.known)
    for index in range(len(log.load())):
        if store.drop_damaged(index):
            fault_log.note("damaged file", trial_name(index))
    ended = _ended(store, log.load())
    died: dict[int, str] = {}
    goes_on = False
    if len(ended) < proposals.total:
        budget = Budget(config.store_memory_gb * 1e9, config.store_disk_gb * 1e9)
        with SharedActionCache.open(folder / STATES, budget) as cache:
            root_of = partial(prepared.root_of, share_work=config.share_work)
            queue = TrialQueue(
                workload.network(),
                prepared.validation_images,
                root_of,
                prepared.preparation,
                workload.pipeline,
                cache,
                _Capacity(config, gpus),
            )
            told = {index: _told(result, config.clock, prepared.flops_per_second) for index, result in ended.items()}
            objective = objective_named(config.objective, config.max_drop)
            searcher = TrialSearcher(queue, log, proposals.sampling, objective, told, config.max_failures, fault_log)
            trainable = tune.with_parameters(
                PruningTrial,
                workload=workload,
                prepared=prepared,
                store=store,
                cache=cache,
                search=config,
                gpus=gpus,
            )
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": config.cpus, "gpu": gpus}),
                run_config=_run_config(config, folder, callbacks, _Refusal(searcher)),
                tune_config=_tune_config(searcher, queue),
            )
            try:
                died = _fit(tuner)
            finally:
                if searcher.refused:  # which says more than what Tune makes of files that it could not write
                    raise searcher.refused
            goes_on = bool(searcher.missing)
    if not goes_on:
        clear_networks(folder / STATES)
    points = log.load()
    if len(points) < proposals.total:
        raise RunError("the search was interrupted before every trial had begun")
    return tuple(_result(index, point, store.load(index), died.get(index, "")) for index, point in enumerate(points))


def earlier_trials(folder: StoragePath, pipeline: str) -> Iterator[tuple[str, Hyperparameters, TrialProgress]]:
    """The trials of the search below `folder` that an earlier part of the run has begun, by name."""
    store = TrialStore(folder / STATES)
    for index, point in enumerate(point_log(folder, pipeline).load()):
        progress = store.load(index)
        if progress is not None:
            yield trial_name(index), point, progress


def point_log(folder: StoragePath, pipeline: str) -> PointLog:
    """The points of the search below `folder`, of a pipeline by name."""
    return PointLog(folder / STATES / "points.json", pipeline_named(pipeline).Hyperparameters)


def work_of(results: Sequence[TrialResult], folder: StoragePath) -> SharedWork:
    """The work that the trials of the search below `folder` shared."""
    return SharedWork.of((result.records for result in results), action_log(folder / STATES).load())


def finished_candidates(results: Sequence[TrialResult], clock: Clock, flops_per_second: float) -> tuple[Candidate, ...]:
    """The trials that finished, as objectives see them."""
    told = (_told(result, clock, flops_per_second) for result in results)
    return tuple(candidate for candidate in told if candidate is not None)


def _told(result: TrialResult, clock: Clock, flops_per_second: float) -> Candidate | None:
    """A trial as objectives and samplers see it; None where it failed."""
    if result.failure:
        return None
    seconds, left = result.pruning_seconds(clock, flops_per_second), result.records[-1].unpruned_share
    return Candidate(result.index, seconds, result.drop, left)


class _Capacity:
    """How many trials may run at once; nodes that join later count."""

    def __init__(self, config: SearchConfig, gpus: float) -> None:
        self._config, self._gpus = config, gpus
        self._count()

    def __call__(self) -> int:
        if time.monotonic() > self._counted + _COUNT_SECONDS:
            self._count()
        fitting = max(1, self._fitting)
        return min(fitting, self._config.concurrent or fitting)

    def _count(self) -> None:
        self._fitting, self._counted = placements(self._config.cpus, self._gpus), time.monotonic()


def _tune_config(searcher: TrialSearcher, queue: TrialQueue) -> tune.TuneConfig:
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=SharingScheduler(queue),
        num_samples=-1,  # the searcher says when there are no more
        reuse_actors=True,
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
    )


class _Refusal(tune.Stopper):
    """Ends the search where no trial can go on."""

    def __init__(self, searcher: TrialSearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._searcher.refused is not None


def _run_config(
    config: SearchConfig, folder: StoragePath, callbacks: list[tune.Callback], stopper: tune.Stopper
) -> tune.RunConfig:
    return tune.RunConfig(
        name=EXPERIMENT,
        **rays_own(folder),
        failure_config=tune.FailureConfig(max_failures=0),  # the searcher starts them again
        # Trials keep their own progress (TrialStore); Tune has nothing to save.
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        callbacks=callbacks,
        stop=stopper,
        verbose=0,
    )


def _fit(tuner: tune.Tuner) -> dict[int, str]:
    """Run it; returns why of the trials whose process died too often, by index."""
    with as_told():
        grid = tuner.fit()
    ended = [grid[position] for position in range(len(grid))]
    return {found.config["point"]["index"]: last_line(found.error) for found in ended if found.error and found.config}


def _ended(store: TrialStore, points: Sequence[Hyperparameters]) -> dict[int, TrialResult]:
    """The trials that an earlier part of this run has ended, by index."""
    found = ((index, point, store.load(index)) for index, point in enumerate(points))
    return {
        index: _result(index, point, progress, "")
        for index, point, progress in found
        if progress and progress.has_ended
    }


def _result(index: int, point: Hyperparameters, progress: TrialProgress | None, death: str) -> TrialResult:
    if not death and (progress is None or not progress.has_ended):
        raise RunError("the search was interrupted before every trial had ended")
    begun = progress or TrialProgress(PipelineState(""))
    failure = begun.failure if begun.has_ended else f"its process died too often: {death}"
    return TrialResult(index, point, begun.state.records, failure, begun.node, begun.inherited, begun.device)


def _trial_name(trial: Trial) -> str:
    return trial_name(trial.config["point"]["index"])


@dataclass(frozen=True)
class SharedWork:
    """How much work the trials of a search asked for, and how much was carried out.

    Attributes:
        asked_fine_tunes, fine_tunes: after their steps, and those that were run.
        asked_retrainings, retrainings: after their last steps, and those that were run.
        asked_seconds: what the trials would have taken alone, wall, added up.
        seconds: what was spent on what was carried out, added up over devices.
    """

    asked_fine_tunes: int
    fine_tunes: int
    asked_retrainings: int
    retrainings: int
    asked_seconds: float
    seconds: float

    @classmethod
    def of(cls, trials: Iterable[Sequence[StepRecord]], action_records: Sequence[ActionRecord]) -> SharedWork:
        """From every trial's records and everything that was carried out for them."""
        records = [record for trial in trials for record in trial]
        asked = sum(record.fine_tuned for record in records)
        asked_fine_tunes = fine_tunes(records)
        run = [each.action.key for each in action_records if isinstance(each.action, FineTune)]
        retrainings = run.count(RETRAINING_KEY)
        return cls(
            asked_fine_tunes=asked_fine_tunes,
            fine_tunes=len(run) - retrainings,
            asked_retrainings=asked - asked_fine_tunes,
            retrainings=retrainings,
            asked_seconds=sum(record.cost.wall_seconds for record in records),
            seconds=sum(action_record.seconds for action_record in action_records),
        )

    def __str__(self) -> str:
        trained = {
            "fine-tune": (self.asked_fine_tunes, self.fine_tunes),
            "retraining": (self.asked_retrainings, self.retrainings),
        }
        said = [
            f"{counted(asked, what)} asked for, {run} carried out" for what, (asked, run) in trained.items() if asked
        ]
        return "; ".join([*said, f"{self.asked_seconds:.0f} s of pruning in {self.seconds:.0f} s of work"])
