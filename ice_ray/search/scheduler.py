"""Tune's scheduler where trials share: one that has to wait gives its device to one that need not."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from ice_ray.search.shared_trial_queue import SharedTrialQueue


class SharingScheduler(FIFOScheduler):
    """Pauses a trial that reports `waiting` where another is ready, and starts it again when its turn has come."""

    _supports_buffered_results = False

    def __init__(self, queue: SharedTrialQueue) -> None:
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
        if "waiting" not in result or not self._queue.yields():
            return TrialScheduler.CONTINUE
        # Without Tune's own checkpoint: where a trial stands is in the run's storage already.
        tune_controller.pause_trial(trial, should_checkpoint=False)
        self._queue.pause(index)
        self._paused[index] = trial
        return TrialScheduler.NOOP

    def debug_string(self) -> str:
        return f"{len(self._paused)} trials wait for what others are at"
