"""What Tune asks: which trial to start next and with which point, which to pause, which to start again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ice_ray.cluster.fault_log import FaultLog
from ice_ray.errors import StorageError, UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objectives import Candidate, Objective
from ice_ray.trials.proposals import PointLog
from ice_ray.trials.reports import refusal_of
from ice_ray.trials.sampler import Outcome, Sampling
from ice_ray.trials.trial_queue import TrialQueue
from ice_ray.trials.trial_store import trial_name


class TrialSearcher(Searcher):
    """Gives Tune the open trials in the queue's order; then asks the sampler, where there is one, for more points.

    A new point is written to the log before Tune hears of it. One is asked for only when a trial can start at once,
    so that it knows every trial which has ended by then.

    Args:
        sampling: how points are found while the search runs; None where all are known.
        ended: what became of the trials that an earlier part of this run ended; None for those that failed.
        max_failures: how often a trial whose process died is started again.
        fault_log: where it is noted that one was.

    Attributes:
        refused: why no trial can go on: the storage took nothing any more, or the input is wrong. The search ends then.
    """

    def __init__(
        self,
        queue: TrialQueue,
        log: PointLog,
        sampling: Sampling | None,
        objective: Objective,
        ended: Mapping[int, Candidate | None],
        max_failures: int,
        fault_log: FaultLog,
    ) -> None:
        super().__init__()
        self._queue, self._log = queue, log
        self._sampling, self._objective = sampling, objective
        self._ended, self._live = dict(ended), dict[str, int]()
        self._restarts, self._fault_log = Restarts(max_failures), fault_log
        self.refused: StorageError | UserError | None = None
        self._points = log.load()
        for index, point in enumerate(self._points):
            if index not in self._ended:
                queue.add(index, point)

    @property
    def missing(self) -> int:
        """Trials that have yet to end."""
        total = self._sampling.total if self._sampling else len(self._points)
        return total - len(self._ended)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if not self.missing or self.refused:
            return Searcher.FINISHED
        index = self._queue.next()
        if index is None and self._queue.has_room():
            index = self._sample()
        if index is None or index in self._live.values():
            return None  # nothing to start, or a paused trial's turn
        self._queue.start(index)
        self._live[trial_id] = index
        return {"point": {"index": index, "hyperparameters": self._points[index].as_dict()}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        index = self._live.pop(trial_id, None)
        if index is None:
            return  # told already
        if result and result.get("refused"):
            self.refused = refusal_of(result)
            return
        if error:
            self._queue.lose(index)
            if self._restarts.again(index):
                self._fault_log.note("trial restart", trial_name(index))
                return  # open again
        self._queue.end(index)
        if error or not result or result.get("failure"):
            self._ended[index] = None
        else:
            self._ended[index] = Candidate(index, result["pruning_seconds"], result["drop"])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the log and the trials' own progress are what a resumed search reads."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a resumed search is a new searcher."""

    def _sample(self) -> int | None:
        """A new trial, at the point that the sampler asks for."""
        if self._sampling is None or len(self._points) >= self._sampling.total:
            return None
        point = self._sampling.suggest(self._history(), self._objective.dimensions)
        index = self._log.append(point)
        self._points = (*self._points, point)
        self._queue.add(index, point)
        return index

    def _history(self) -> list[tuple[Hyperparameters, Outcome]]:
        usable = [c for c in self._ended.values() if c is not None and c.is_usable and self._objective.accepts(c)]
        outcomes = dict(zip((c.index for c in usable), self._objective.values(usable), strict=True))
        return [(point, outcomes.get(index)) for index, point in enumerate(self._points)]


class SharingScheduler(FIFOScheduler):
    """Pauses a trial that reports `waiting` where another is ready, and starts it again when its turn has come."""

    _supports_buffered_results = False

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._queue = queue
        self._paused: dict[int, Trial] = {}

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A paused trial whose turn it is; those that were never started, the searcher gives."""
        index = self._queue.next() if self._paused else None
        if index not in self._paused:
            return None
        self._queue.start(index)
        return self._paused.pop(index)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        index = trial.config["point"]["index"]
        self._queue.tidy()
        if "waiting" not in result or self._queue.ready() is None:
            return TrialScheduler.CONTINUE
        # Without Tune's own checkpoint: where a trial stands is in the run's storage already.
        tune_controller.pause_trial(trial, should_checkpoint=False)
        self._queue.pause(index)
        self._paused[index] = trial
        return TrialScheduler.NOOP

    def debug_string(self) -> str:
        return f"{len(self._paused)} trials wait for what others are at"


class Restarts:
    """Counts how often each trial's process died. Tune's own count fails a trial at once whose process dies while it is
    handed over from another.
    """

    def __init__(self, allowed: int) -> None:
        self._allowed, self._deaths = allowed, Counter[Hashable]()

    def again(self, trial: Hashable) -> bool:
        """A trial's process has died: whether it is started again."""
        self._deaths[trial] += 1
        return self._deaths[trial] <= self._allowed
