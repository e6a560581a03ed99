"""Lines about trials as they end."""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.terminal import say
from ice_ray.trials.searcher import Restarts


class ProgressCallback(tune.Callback):
    """A line for every trial that ends, of those that are still to be run, and for every process that dies."""

    def __init__(self, total: int, max_failures: int, kind: type[Hyperparameters]) -> None:
        self._total, self._restarts, self._kind = total, Restarts(max_failures), kind
        self._ended: set[str] = set()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result or {}
        if result.get("refused"):
            say(f"  {trial}: {result['refused']}")
        elif result.get("failure"):
            self._line(trial, f"failed: {result['failure']}")
        else:
            self._line(
                trial,
                f"drop {result['drop']:.2f} points in {result['pruning_seconds']:.1f} s, cost {result['cost']:.4f}",
            )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if self._restarts.again(str(trial)):
            say(f"  {trial}: its process died; it goes on from its last step")
        else:
            self._line(trial, "failed: its process died more often than --search.max-failures allows")

    def _line(self, trial: Trial, what: str) -> None:
        self._ended.add(str(trial))
        point = self._kind.from_mapping(trial.config["point"]["hyperparameters"])
        say(f"  {trial} ({len(self._ended)}/{self._total}) {what} [{point}]")
