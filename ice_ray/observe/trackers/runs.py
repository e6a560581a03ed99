"""One of Ray's loggers, told of every run of a pipeline: of trials by Tune, of the replay by the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.air.constants import TRAINING_ITERATION
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from ice_ray.address import StoragePath
from ice_ray.errors import in_one_line
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.step_log import dense_figures, parameters, step_figures
from ice_ray.observe.terminal import warn
from ice_ray.observe.trackers.ledger import Entry, Ledger
from ice_ray.trials.searcher import Restarts


@dataclass(eq=False)
class _Told:
    """What Ray's loggers read of a trial. Its own configuration is nested, and it is another one after a restart."""

    name: str
    config: dict[str, Any]
    local_path: str
    experiment_dir_name: str
    trial_id: str

    def __str__(self) -> str:
        return self.name


class TrackedRuns:
    """Runs of pipelines, each begun, told of its steps and ended, by name.

    A log for people must not cost the run: after the first fault the tracker is left out, and a warning says so.

    Args:
        tracker: its name, for the warning.
        group: what its runs have in common.
        folder: where it may keep files.
        ledger: what earlier parts of the run have told it.
        late: whether it has written down what it was told only when it is closed.
    """

    def __init__(
        self, tracker: str, logger: LoggerCallback, group: str, folder: StoragePath, ledger: Ledger, late: bool = False
    ) -> None:
        self._tracker, self._logger, self._group, self._folder = tracker, logger, group, folder
        self._ledger, self._late, self._over = ledger, late, list[Entry]()
        self._told: dict[str, _Told] = {}
        self._works = True

    def open(self) -> None:
        """Before the first of them."""
        self._try(self._logger.setup)

    def begin(self, name: str, hyperparameters: Hyperparameters) -> None:
        """A run begins, or goes on: after its process died, or in another job."""
        if name not in self._told:
            entry = self._ledger.entry(name)
            self._told[name] = _Told(name, parameters(hyperparameters), str(self._folder), self._group, entry.id)
            self._try(self._logger.log_trial_start, self._told[name])

    def step(self, name: str, values: Mapping[str, Any]) -> None:
        """It has taken a step; nothing where that has been told before."""
        entry, step = self._ledger.entry(name), int(values["step"])
        if step == 1 and not entry.told:
            self._tell(name, 0, dense_figures(values))
        if step > entry.told and self._tell(name, step, step_figures(values)):
            entry.told = step
            self._ledger.write()

    def has_ended(self, name: str) -> bool:
        """Whether all of it has been told."""
        return self._ledger.has_ended(name)

    def end(self, name: str, figures: Mapping[str, float], failed: bool) -> None:
        """It is over: its results, by their names."""
        entry = self._ledger.entry(name)
        if not entry.measured and self._tell(name, entry.told, figures):
            entry.measured = True
            self._ledger.write()
        if self._try(self._logger.log_trial_end, self._told.pop(name), failed=failed):
            self._over.append(entry)
            if not self._late:
                self._settle()

    def close(self) -> None:
        """After the last of them; those that have not ended were interrupted."""
        for name in list(self._told):
            self._try(self._logger.log_trial_end, self._told.pop(name), failed=True)
        if self._try(self._logger.on_experiment_end, []):
            self._settle()

    def _settle(self) -> None:
        """Nothing of those that are over can be lost any more."""
        for entry in self._over:
            entry.ended = True
        self._ledger.write()

    def _tell(self, name: str, step: int, named: Mapping[str, float]) -> bool:
        content = {TRAINING_ITERATION: step, **named}
        return not named or self._try(self._logger.log_trial_result, step, self._told[name], content)

    def _try(self, deed: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
        """Whether it went well."""
        if not self._works:
            return False
        try:
            deed(*arguments, **named)
        except Exception as error:  # whatever a client of a server may raise
            self._works = False
            warn(f"--log-to {self._tracker}: nothing more is logged there ({in_one_line(f'{error}'[:200])})")
        return self._works

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks; what it would get back is looked at by nobody


class TrackerCallback(tune.Callback):
    """Tells a tracker of every trial of a search.

    Args:
        max_failures: how often a trial whose process died is started again; it has ended when it dies once more.
        kind: of hyperparameters.
    """

    def __init__(self, runs: TrackedRuns, max_failures: int, kind: type[Hyperparameters]) -> None:
        self._runs, self._restarts, self._kind = runs, Restarts(max_failures), kind

    def catch_up(
        self, trial: str, reports: Sequence[Mapping[str, Any]], hyperparameters: Mapping[str, float], ended: bool
    ) -> None:
        """What an earlier part of the run did, and the driver was lost before it could tell it."""
        if ended and self._runs.has_ended(trial):
            return
        self._runs.begin(trial, self._kind.from_mapping(hyperparameters))
        for values in reports:
            self._runs.step(trial, values)
        if ended:
            self._runs.end(trial, {}, failed=not (reports and reports[-1]["done"]))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._begin(trial)
        if "step" in result:
            self._runs.step(str(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result or {}
        if result.get("refused"):
            return  # it has not ended
        self._begin(trial)
        self._runs.end(str(trial), {}, failed=bool(result.get("failure")))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._restarts.again(str(trial)):
            self._begin(trial)
            self._runs.end(str(trial), {}, failed=True)

    def _begin(self, trial: Trial) -> None:
        self._runs.begin(str(trial), self._kind.from_mapping(trial.config["point"]["hyperparameters"]))


class TrackedReplay:
    """Tells a tracker of stage 2. SGD losses are not told: thousands of calls to a server would hold the run up."""

    def __init__(self, runs: TrackedRuns, name: str, hyperparameters: Hyperparameters) -> None:
        self._runs, self._name = runs, name
        runs.begin(name, hyperparameters)

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step."""
        self._runs.step(self._name, values)

    def catch_up(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Those that have not been told."""
        for values in reports:
            self.step(values)

    def losses(self, values: Sequence[float], first: int) -> None:
        """Not told."""

    def end(self, last: int, assessment: Mapping[str, Any]) -> None:
        """Dense and pruned, as measured; the run is over."""
        named = {
            f"{which}/{key}": float(value)
            for which in ("dense", "pruned")
            for key, value in assessment[which].items()
            if isinstance(value, (int, float))
        }
        self._runs.end(self._name, named, failed=False)
