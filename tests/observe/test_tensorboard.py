"""TensorBoard's events: what was not written before the driver was lost is written once it is back."""

import dataclasses
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.observe.event_files import steps_with
from ice_ray.observe.tensorboard import StepWriter, TensorBoardCallback
from ice_ray.pipelines.records import StepRecord
from ice_ray.search.reports import step_reports

POINT = IceHyperparameters(1.0, 0.3, 0.005, 6e-4, 0.1, 50).as_dict()


def reports(count: int, finished: bool = True):
    accuracies = {"accuracy_before": 90.0, "accuracy": 88.0, "drop": 2.0}
    record = StepRecord(
        step=1, layers="layer", filters_removed=4, unpruned_share=0.9, fine_tuning_seconds=3.0, **accuracies
    )
    records = [dataclasses.replace(record, step=number, drop=float(number)) for number in range(1, count + 1)]
    return step_reports(records, finished, "wall", 1.0)


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
    before = StepWriter(folder, "run")
    for values in reports(2):
        before.step(values)
    again = StepWriter(folder, "run")
    again.catch_up(reports(4))
    again.step(reports(5)[-1])
    assert written(folder, "accuracy/drop") == [(number, float(number)) for number in range(1, 6)]


def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(tmp_path):
    folder = tmp_path / "replay"
    before = StepWriter(folder, "run")
    for values in reports(3):
        before.step(values)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    assert {step for step, _ in written(folder, "pruning/seconds")} == {1, 2}
    StepWriter(folder, "run").catch_up(reports(3))
    for tag in ("accuracy/drop", "pruning/cost_so_far", "pruning/seconds"):
        assert {step for step, _ in written(folder, tag)} == {1, 2, 3}


def test_where_events_cannot_be_read_nothing_is_written_twice(tmp_path):
    folder = tmp_path / "replay"
    before = StepWriter(folder, "run")
    before.step(reports(1)[0])
    (folder / "events.out.tfevents.odd").mkdir()
    again = StepWriter(folder, "run")
    again.catch_up(reports(1))
    assert again.has_ended()
    (folder / "events.out.tfevents.odd").rmdir()
    assert [step for step, _ in written(folder, "pruning/seconds")] == [1]


def test_a_trial_that_ended_unseen_gets_its_results_once(tmp_path):
    folder = tmp_path / "trial-000"
    for _ in range(2):
        TensorBoardCallback(tmp_path, "run", 3).catch_up("trial-000", reports(3), POINT, ended=True)
    assert written(folder, "result/drop") == [(0, 3.0)]
    assert [step for step, _ in written(folder, "pruning/seconds")] == [1, 2, 3]


def test_one_that_goes_on_or_has_failed_has_no_results_and_the_latter_its_hyperparameters_once(tmp_path):
    for name, ended in (("goes-on", False), ("failed", True)):
        sizes = []
        for _ in range(2):
            TensorBoardCallback(tmp_path, "run", 3).catch_up(name, reports(2, finished=False), POINT, ended)
            sizes.append(sum(file.stat().st_size for file in (tmp_path / name).iterdir()))
        assert sizes[0] == sizes[1]
        assert written(tmp_path / name, "result/drop") == []
        assert steps_with(tmp_path / name, "_hparams_/session_end_info") == ({0} if ended else set())
