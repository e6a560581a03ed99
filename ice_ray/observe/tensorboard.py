"""TensorBoard events: the same tags over pruning steps for every trial and for stage 2, written while they run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ray import tune
from ray.tune.experiment import Trial
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ice_ray.address import StoragePath, storage_path
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.event_files import event_file, steps_with
from ice_ray.observe.step_log import RESULT_TAGS, STEP_TAGS, figures
from ice_ray.observe.terminal import warn
from ice_ray.search.searcher import Restarts

logging.getLogger("tensorboard").setLevel(logging.ERROR)


class StepWriter:
    """Event files of one run of a pipeline, below `folder`. Nothing hangs on them: where the storage refuses them, that
    is said, and what comes later goes into another file.

    Args:
        run: the name of the run as a whole.
    """

    def __init__(self, folder: StoragePath, run: str) -> None:
        self._folder = storage_path(folder)
        # The HParams tab cuts names after a dozen characters: what differs comes first.
        self._name = f"{folder.name} of {run}"
        self._writer: SummaryWriter | None = None

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step: the fields of its record, with `pruning_seconds` and `cost_so_far` where they are known."""
        with self._open() as writer:
            for tag, value in figures(values, STEP_TAGS).items():
                writer.add_scalar(tag, value, int(values["step"]))
            writer.flush()

    def catch_up(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Steps taken before: those that were not told, as the driver was lost in between."""
        told = self._told(STEP_TAGS["pruning_seconds"])
        for values in reports:
            if told is not None and int(values["step"]) not in told:
                self.step(values)

    def has_ended(self) -> bool:
        """Whether its hyperparameters and results have been written, or nobody can tell."""
        return self._told("_hparams_/session_end_info") != set()

    def _told(self, tag: str) -> set[int] | None:
        try:
            return steps_with(self._folder, tag)
        except OSError as error:
            warn(f"TensorBoard events that are there cannot be read ({error.strerror or error})")
            return None

    def losses(self, values: Sequence[float], first: int) -> None:
        """The loss of every SGD step of a fine-tune, numbered through the run from `first` on."""
        with self._open() as writer:
            for number, value in enumerate(values, start=first):
                writer.add_scalar("fine_tuning/loss", value, number)
            writer.flush()

    def end(self, hyperparameters: Mapping[str, float], values: Mapping[str, Any]) -> None:
        """The run's hyperparameters with its results, for the HParams tab; a failed run has no results."""
        metrics = figures(values, RESULT_TAGS)
        unused = Hyperparameters.defaults().items()
        searched = {name: value for name, value in hyperparameters.items() if (name, value) not in unused}
        with self._open() as writer:
            if writer.file_writer is not None:
                for summary in hparams(searched, metrics):
                    _call(summary, self._name)
                    writer.file_writer.add_summary(summary)
            for tag, value in metrics.items():
                writer.add_scalar(tag, value, 0)
            writer.close()

    @contextmanager
    def _open(self) -> Iterator[SummaryWriter]:
        try:
            if self._folder.local is None:
                with event_file(self._folder) as writer:
                    yield writer
                return
            self._writer = self._writer or SummaryWriter(str(self._folder))
            yield self._writer
        except OSError as error:
            self._writer = None  # it gives the same error for ever
            warn(f"no TensorBoard events of this step ({error.strerror or error})")


class TensorBoardCallback(tune.Callback):
    """Writes the events of every trial of a search, on the driver. Tune pickles it, so open files stay out of that.

    Args:
        run: the name of the run as a whole.
        max_failures: how often a trial whose process died is started again; it has ended when it dies once more.
    """

    def __init__(self, folder: StoragePath, run: str, max_failures: int) -> None:
        self._folder, self._run, self._restarts = folder, run, Restarts(max_failures)
        self._writers: dict[str, StepWriter] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        name = str(trial)
        if name not in self._writers:
            self._writers[name] = StepWriter(self._folder / name, self._run)
        if "step" in result:
            self._writers[name].step(result)

    def catch_up(
        self, trial: str, reports: Sequence[Mapping[str, Any]], hyperparameters: Mapping[str, float], ended: bool
    ) -> None:
        """What an earlier part of the run did, and the driver was lost before it could write it: steps, and, where the
        trial has ended, its results; a failed one has none, for no report of it is the last.
        """
        writer = StepWriter(self._folder / trial, self._run)
        writer.catch_up(reports)
        if not ended:
            self._writers[trial] = writer
        elif not writer.has_ended():
            writer.end(hyperparameters, reports[-1] if reports and reports[-1]["done"] else {})

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._restarts.again(str(trial)):
            self._end(trial)

    def _end(self, trial: Trial) -> None:
        writer = self._writers.pop(str(trial), None) or StepWriter(self._folder / str(trial), self._run)
        result = trial.last_result or {}
        if result.get("refused"):
            return  # it has not ended
        writer.end(trial.config["point"]["hyperparameters"], {} if result.get("failure") else result)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}


def _call(summary: Summary, name: str) -> None:
    """Give the HParams tab a name to show; without one it is the path of the event file."""
    for value in summary.value:
        content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        if content.HasField("session_start_info"):
            content.session_start_info.group_name = name
            value.metadata.plugin_data.content = content.SerializeToString()
