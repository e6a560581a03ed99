"""TensorBoard events: the same tags over pruning steps for every trial and for stage 2, written while they run.

The HParams tab shows the last value of every chart of a run. So the charts whose last value says nothing, those of
fine-tuning, are a run of their own beside it. No run declares an experiment: TensorBoard would take that of one run for
all the others too, where without any it gathers the hyperparameters and figures of all runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from ray import tune
from ray.tune.experiment import Trial
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.metadata import PLUGIN_DATA_VERSION, SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch.utils.tensorboard import SummaryWriter

from ice_ray.address import StoragePath, storage_path
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.event_files import event_file, steps_with
from ice_ray.observe.step_log import (
    DESCRIPTIONS,
    LOSS,
    STEP_TAGS,
    dense_figures,
    outcome_figures,
    parameters,
    step_figures,
)
from ice_ray.observe.terminal import warn
from ice_ray.trials.searcher import Restarts

logging.getLogger("tensorboard").setLevel(logging.ERROR)

Settings = Mapping[str, str | float]
"""What a run as a whole was told, by name, so that runs compare."""


class StepWriter:
    """Event files of one run of a pipeline, below `folder`. Nothing hangs on them: where the storage refuses them, that
    is said, and what comes later goes into another file.

    Args:
        run: the name of the run as a whole.
        settings, hyperparameters: for the HParams tab.
    """

    def __init__(self, folder: StoragePath, run: str, settings: Settings, hyperparameters: Hyperparameters) -> None:
        self._folder = storage_path(folder)
        # The HParams tab cuts names after a dozen characters: what differs comes first.
        self._name = f"{folder.name} of {run}"
        self._parameters = {**settings, **parameters(hyperparameters)}
        self._writers: dict[StoragePath, SummaryWriter] = {}
        self._last = 0

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step: the fields of its record, with `pruning_seconds` and `cost_so_far` where they are known.
        The dense model comes with the first.
        """
        at = self._last = int(values["step"])
        figures = step_figures(values)
        tuning = {tag: figures.pop(tag) for tag in _OF_FINE_TUNING if tag in figures}
        if tuning:
            self._write(self._fine_tuning, {at: tuning})
        self._write(self._folder, ({0: dense_figures(values)} if at == 1 else {}) | {at: figures})

    def catch_up(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Steps taken before: those that were not told, as the driver was lost in between."""
        told, self._last = self._told(STEP_TAGS["pruning_seconds"]), len(reports)
        for values in reports:
            if told is not None and int(values["step"]) not in told:
                self.step(values)

    def has_ended(self) -> bool:
        """Whether its hyperparameters have been written, or nobody can tell."""
        return self._told("_hparams_/session_end_info") != set()

    def _told(self, tag: str) -> set[int] | None:
        try:
            return steps_with(self._folder, tag)
        except OSError as error:
            warn(f"TensorBoard events that are there cannot be read ({error.strerror or error})")
            return None

    def losses(self, values: Sequence[float], first: int) -> None:
        """The loss of every SGD step of a fine-tune, numbered through the run from `first` on."""
        self._write(self._fine_tuning, {step: {LOSS: value} for step, value in enumerate(values, start=first)})

    def end(self, last: int, assessment: Mapping[str, Any]) -> None:
        """The run is over: both networks as they were assessed, from the dense one at step 0 to the pruned one."""
        figures = {0: outcome_figures(assessment["dense"]), last: outcome_figures(assessment["pruned"])}
        for step, own in figures.items():
            if step <= self._last:
                del own[STEP_TAGS["accuracy"]]  # told with the step
        self._write(self._folder, figures)
        self.close(failed=False)

    def close(self, failed: bool) -> None:
        """A row for the HParams tab; nothing comes after it."""
        start = SessionStartInfo(group_name=f"{self._name}, failed" if failed else self._name)
        for name, value in self._parameters.items():
            setattr(start.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
        end = SessionEndInfo(status=STATUS_FAILURE if failed else STATUS_SUCCESS)
        with self._open(self._folder) as writer:
            _add(writer, _of_hparams(SESSION_START_INFO_TAG, session_start_info=start))
            _add(writer, _of_hparams(SESSION_END_INFO_TAG, session_end_info=end))
        for writer in self._writers.values():
            writer.close()

    @property
    def _fine_tuning(self) -> StoragePath:
        return self._folder.parent / f"{self._folder.name}-fine-tuning"

    def _write(self, folder: StoragePath, figures: Mapping[int, Mapping[str, float]]) -> None:
        """Figures by tag, by step."""
        with self._open(folder) as writer:
            for step, own in figures.items():
                for tag, value in own.items():
                    _add(writer, _scalar(tag, value), step)
            writer.flush()

    @contextmanager
    def _open(self, folder: StoragePath) -> Iterator[SummaryWriter]:
        try:
            if folder.local is None:
                with event_file(folder) as writer:
                    yield writer
                return
            if folder not in self._writers:
                self._writers[folder] = SummaryWriter(str(folder))
            yield self._writers[folder]
        except OSError as error:
            self._writers.pop(folder, None)  # it gives the same error for ever
            warn(f"no TensorBoard events of this step ({error.strerror or error})")


_OF_FINE_TUNING = (STEP_TAGS["accuracy_after_pruning"], STEP_TAGS["learning_rate_max"])


def _add(writer: SummaryWriter, summary: Summary, step: int = 0) -> None:
    if writer.file_writer is not None:  # it is, until it is closed
        writer.file_writer.add_summary(summary, step)


def _scalar(tag: str, value: float) -> Summary:
    metadata = _metadata("scalars")
    # Without plugin and class TensorBoard makes metadata of its own, which has no description.
    metadata.summary_description, metadata.data_class = DESCRIPTIONS[tag], DATA_CLASS_SCALAR
    return Summary(value=[Summary.Value(tag=tag, simple_value=value, metadata=metadata)])


def _of_hparams(tag: str, **content: Any) -> Summary:
    data = HParamsPluginData(version=PLUGIN_DATA_VERSION, **content).SerializeToString()
    return Summary(value=[Summary.Value(tag=tag, metadata=_metadata("hparams", data))])


def _metadata(plugin: str, content: bytes = b"") -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))


class TensorBoardCallback(tune.Callback):
    """Writes the events of every trial of a search, on the driver. Tune pickles it, so open files stay out of that.

    Args:
        run: the name of the run as a whole.
        max_failures: how often a trial whose process died is started again; it has ended when it dies once more.
        kind: of hyperparameters.
        settings: of the run, for the HParams tab.
    """

    def __init__(
        self, folder: StoragePath, run: str, max_failures: int, kind: type[Hyperparameters], settings: Settings
    ) -> None:
        self._folder, self._run, self._restarts = folder, run, Restarts(max_failures)
        self._kind, self._settings = kind, settings
        self._writers: dict[str, StepWriter] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if "step" in result:
            self._writer(trial).step(result)

    def catch_up(
        self, trial: str, reports: Sequence[Mapping[str, Any]], hyperparameters: Mapping[str, float], ended: bool
    ) -> None:
        """What an earlier part of the run did, and the driver was lost before it could write it: steps, and, where the
        trial has ended, its row of the HParams tab; no report of one that failed is the last.
        """
        writer = self._new_writer(trial, hyperparameters)
        writer.catch_up(reports)
        if not ended:
            self._writers[trial] = writer
        elif not writer.has_ended():
            writer.close(failed=not (reports and reports[-1]["done"]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._restarts.again(str(trial)):
            self._end(trial)

    def _writer(self, trial: Trial) -> StepWriter:
        if str(trial) not in self._writers:
            self._writers[str(trial)] = self._new_writer(str(trial), trial.config["point"]["hyperparameters"])
        return self._writers[str(trial)]

    def _new_writer(self, trial: str, hyperparameters: Mapping[str, float]) -> StepWriter:
        return StepWriter(self._folder / trial, self._run, self._settings, self._kind.from_mapping(hyperparameters))

    def _end(self, trial: Trial) -> None:
        writer, result = self._writer(trial), trial.last_result or {}
        del self._writers[str(trial)]
        if not result.get("refused"):  # else it has not ended
            writer.close(failed=bool(result.get("failure")) or "cost" not in result)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}
