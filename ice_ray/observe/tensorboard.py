"""TensorBoard events: the same tags over pruning steps for every trial and for stage 2, written while they run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ray import tune
from ray.tune.experiment import Trial
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ice_ray.search.restarts import Restarts

logging.getLogger("tensorboard").setLevel(logging.ERROR)

STEP_TAGS = {
    "accuracy_after_pruning": "accuracy/after_pruning",
    "accuracy": "accuracy/after_recovery",
    "drop": "accuracy/drop",
    "learning_rate_max": "recovery/learning_rate_max",
    "fine_tuned": "recovery/fine_tuned",
    "inherited": "pruning/inherited",
    "unpruned_share": "pruning/unpruned_share",
    "pruning_seconds": "pruning/seconds",
    "cost_so_far": "pruning/cost_so_far",
}
_METRICS = {"cost": "result/cost", "drop": "result/drop", "pruning_seconds": "result/pruning_seconds"}


class StepWriter:
    """Event files of one run of a pipeline, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step: the fields of its record, with `pruning_seconds` and `cost_so_far` where they are known."""
        for field, tag in STEP_TAGS.items():
            value = values.get(field)
            if value is not None:
                self._writer.add_scalar(tag, float(value), int(values["step"]))
        self._writer.flush()

    def losses(self, values: Sequence[float], first: int) -> None:
        """The loss of every SGD step of a fine-tune, numbered through the run from `first` on."""
        for number, value in enumerate(values, start=first):
            self._writer.add_scalar("recovery/loss", value, number)
        self._writer.flush()

    def end(self, hyperparameters: Mapping[str, float], values: Mapping[str, Any]) -> None:
        """The run's hyperparameters with its results, for the HParams tab; a failed run has no results."""
        metrics = {tag: float(values[name]) for name, tag in _METRICS.items() if values.get(name) is not None}
        if self._writer.file_writer is not None:
            for summary in hparams(dict(hyperparameters), metrics):
                self._writer.file_writer.add_summary(summary)
        for tag, value in metrics.items():
            self._writer.add_scalar(tag, value, 0)
        self._writer.close()


class TensorBoardCallback(tune.Callback):
    """Writes the events of every trial of a search, on the driver. Tune pickles it, so open files stay out of that.

    Args:
        max_failures: how often a trial whose process died is started again; it has ended when it dies once more.
    """

    def __init__(self, folder: Path, max_failures: int) -> None:
        self._folder, self._restarts = folder, Restarts(max_failures)
        self._writers: dict[str, StepWriter] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        name = str(trial)
        if name not in self._writers:
            self._writers[name] = StepWriter(self._folder / name)
        if "step" in result:
            self._writers[name].step(result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._restarts.again(str(trial)):
            self._end(trial)

    def _end(self, trial: Trial) -> None:
        writer = self._writers.pop(str(trial), None) or StepWriter(self._folder / str(trial))
        result = trial.last_result or {}
        writer.end(trial.config["point"]["hyperparameters"], {} if result.get("failure") else result)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}
