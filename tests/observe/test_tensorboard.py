"""TensorBoard's events: what was not written before the driver was lost is written once it is back."""

import dataclasses
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS, ListSessionGroupsRequest
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessionGroups
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.observe.event_files import steps_with
from ice_ray.observe.step_log import DESCRIPTIONS
from ice_ray.observe.tensorboard import StepWriter, TensorBoardCallback
from ice_ray.pipelines.baseline import BaselineHyperparameters
from ice_ray.pipelines.records import StepRecord
from ice_ray.trials.reports import step_reports

POINT = IceHyperparameters(1.0, 0.3, 0.005, 6e-4, 0.1, 50)
SETTINGS = {"pipeline": "ice", "ratio": 0.5}


def reports(count: int, finished: bool = True):
    accuracies = {"accuracy_before": 90.0, "accuracy": 89.0, "drop": 1.0}
    record = StepRecord(
        step=1, layers="layer", filters_removed=4, unpruned_share=0.9, fine_tuning_seconds=3.0, **accuracies
    )
    records = [
        dataclasses.replace(record, step=number, accuracy=90.0 - number, drop=float(number))
        for number in range(1, count + 1)
    ]
    return step_reports(records, finished, "wall", 1.0)


def writer(folder: Path) -> StepWriter:
    return StepWriter(folder, "run", SETTINGS, POINT)


def values(folder: Path):
    """Of all events below a folder."""
    for file in folder.iterdir():
        for event in EventFileLoader(str(file)).Load():
            yield from event.summary.value


def written(folder: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)] if tag in found.Tags()["scalars"] else []


def test_a_report_has_the_time_and_the_cost_as_they_were():
    *earlier, last = reports(3)
    assert [each["pruning_seconds"] for each in (*earlier, last)] == [3.0, 6.0, 9.0]
    assert [each["done"] for each in (*earlier, last)] == [False, False, True]
    assert last["cost"] == pytest.approx((9 + 3) / 9)
    assert "cost" not in reports(3, finished=False)[-1]


def test_only_the_steps_that_were_not_told_are_written(tmp_path):
    folder = tmp_path / "replay"
    before = writer(folder)
    for values in reports(2):
        before.step(values)
    again = writer(folder)
    again.catch_up(reports(4))
    again.step(reports(5)[-1])
    assert written(folder, "accuracy/validation") == [(number, 90.0 - number) for number in range(6)]


def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path):
    folder = tmp_path / "replay"
    before = writer(folder)
    for values in reports(3):
        before.step(values)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    assert {step for step, _ in written(folder, "time/cumulative_pruning")} == {0, 1, 2}
    writer(folder).catch_up(reports(3))
    assert {step for step, _ in written(folder, "cost/cumulative")} == {1, 2, 3}
    for tag in ("accuracy/validation", "time/cumulative_pruning"):
        assert {step for step, _ in written(folder, tag)} == {0, 1, 2, 3}


def test_where_events_cannot_be_read_nothing_is_written_twice(tmp_path):
    folder = tmp_path / "replay"
    before = writer(folder)
    before.step(reports(1)[0])
    (folder / "events.out.tfevents.odd").mkdir()
    again = writer(folder)
    again.catch_up(reports(1))
    assert again.has_ended()
    (folder / "events.out.tfevents.odd").rmdir()
    assert [step for step, _ in written(folder, "time/cumulative_pruning")] == [0, 1]


def told_again(folder: Path, *reported, ended: bool = True, point: IceHyperparameters = POINT) -> None:
    callback = TensorBoardCallback(folder, folder.name, 3, IceHyperparameters, SETTINGS)
    callback.catch_up("trial-000", *reported, point.as_dict(), ended)


def sessions(folder: Path) -> list[SessionStartInfo]:
    """What the event files of a run say for the HParams tab."""
    metadata = EventAccumulator(str(folder)).Reload().summary_metadata
    data = [HParamsPluginData.FromString(each.plugin_data.content) for each in metadata.values()]
    return [each.session_start_info for each in data if each.HasField("session_start_info")]


def test_a_trial_that_ended_unseen_is_told_once(tmp_path):
    for _ in range(2):
        told_again(tmp_path, reports(3))
    folder = tmp_path / "trial-000"
    assert [step for step, _ in written(folder, "time/cumulative_pruning")] == [0, 1, 2, 3]
    assert [each.group_name for each in sessions(folder)] == [f"trial-000 of {tmp_path.name}"]


def test_one_that_goes_on_has_no_row_of_hyperparameters_and_one_that_failed_has_it_once_and_is_called_so(tmp_path):
    for name, ended in (("goes-on", False), ("failed", True)):
        sizes = []
        for _ in range(2):
            told_again(tmp_path / name, reports(2, finished=False), ended=ended)
            sizes.append(sum(file.stat().st_size for file in (tmp_path / name).glob("*/*")))
        assert sizes[0] == sizes[1]
        folder = tmp_path / name / "trial-000"
        assert steps_with(folder, "_hparams_/session_end_info") == ({0} if ended else set())
        assert [each.group_name for each in sessions(folder)] == ["trial-000 of failed, failed"] * ended


def test_the_dense_model_is_step_0_and_charts_of_fine_tuning_are_apart(tmp_path):
    """The HParams tab shows the last value of every chart of a run, which says nothing of a rate or a loss."""
    folder, own = tmp_path / "replay", writer(tmp_path / "replay")
    first, second = reports(2)
    own.step(first)
    assert not (tmp_path / "replay-fine-tuning").exists()
    own.step(second | {"fine_tuned": True, "accuracy_after_pruning": 70.0, "learning_rate_max": 0.01})
    own.losses([3.0, 2.0], 7)
    assessed = {"validation_accuracy": 88.0, "test_accuracy": 87.0, "parameters": 9, "multiply_adds": 90}
    assessed |= {"latency_1_ms": 1.0, "latency_64_ms": 2.0, "file_bytes": 5, "widths": {}}
    own.end(2, {"dense": assessed | {"validation_accuracy": 90.0, "test_accuracy": 91.0}, "pruned": assessed})
    tags = set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])
    assert tags == {
        "accuracy/validation", "size/parameters_left", "cost/cumulative", "time/cumulative_pruning",
        "accuracy/test", "size/parameters", "size/multiply_adds",
        "latency/pytorch_eager_batch_1", "latency/pytorch_eager_batch_64",
    }  # fmt: skip
    assert written(folder, "accuracy/validation") == [(0, 90.0), (1, 89.0), (2, 88.0)]
    assert written(folder, "size/parameters_left") == [(0, 100.0), (1, 90.0), (2, 90.0)]
    assert written(folder, "accuracy/test") == [(0, 91.0), (2, 87.0)]
    beside = tmp_path / "replay-fine-tuning"
    assert written(beside, "accuracy/before_fine_tuning") == [(2, 70.0)]
    assert written(beside, "fine_tuning/loss") == [(7, 3.0), (8, 2.0)]
    assert tags | set(EventAccumulator(str(beside)).Reload().Tags()["scalars"]) <= set(DESCRIPTIONS)
    described = {value.metadata.summary_description for value in values(beside)}
    assert DESCRIPTIONS["fine_tuning/loss"] in described


def test_a_retraining_has_no_charts_of_fine_tuning(tmp_path):
    """What it began with is the step before, and its rate a hyperparameter."""
    (values,) = reports(1)
    writer(tmp_path / "replay").step(values | {"fine_tuned": True, "learning_rate_max": 0.1, "layers": "retraining"})
    assert [path.name for path in tmp_path.iterdir()] == ["replay"]


def test_a_final_training_s_accuracy_is_a_step_of_its_own(tmp_path):
    own = writer(tmp_path / "replay")
    own.step(reports(1)[0])
    own.end(2, {"dense": {"validation_accuracy": 90.0}, "pruned": {"validation_accuracy": 89.5}})
    assert written(tmp_path / "replay", "accuracy/validation") == [(0, 90.0), (1, 89.0), (2, 89.5)]


def test_runs_with_theta_never_and_with_a_number_compare_in_one_table(tmp_path):
    """As TensorBoard itself gathers it, over runs of two pipelines too."""
    told_again(tmp_path / "number", reports(2))
    told_again(tmp_path / "never", reports(2), point=IceHyperparameters(final_epochs=4, final_learning_rate=0.01))
    own = StepWriter(tmp_path / "other" / "replay", "run", {"pipeline": "baseline"}, BaselineHyperparameters(0.01))
    own.step(reports(1)[0])
    own.close(failed=False)
    provider = MultiplexerDataProvider(EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload(), str(tmp_path))
    context = Context(TBContext(data_provider=provider))
    request = RequestContext()
    content = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, content, [])
    columns = {info.name: info for info in experiment.hparam_infos}
    assert set(columns) == {"pipeline", "ratio", "learning_rate", *IceHyperparameters.names()}
    assert sorted(columns["accuracy_drop_threshold"].domain_discrete) == ["1", "never"]
    assert sorted(columns["pipeline"].domain_discrete) == ["baseline", "ice"]
    figures = {info.name.tag for info in experiment.metric_infos}
    assert figures == {"accuracy/validation", "size/parameters_left", "cost/cumulative", "time/cumulative_pruning"}
    asked = ListSessionGroupsRequest(allowed_statuses=[STATUS_SUCCESS], slice_size=9)
    rows = ListSessionGroups(request, context, "", asked).run()
    (never,) = (row for row in rows.session_groups if "final_epochs" in row.hparams)
    assert set(never.hparams) == {"pipeline", "ratio", "accuracy_drop_threshold", "final_epochs", "final_learning_rate"}
    assert never.hparams["accuracy_drop_threshold"].string_value == "never"
    assert len(rows.session_groups) == 3
