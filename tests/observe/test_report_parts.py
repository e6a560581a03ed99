"""What the report says of a run, from records alone: savings, reasons, places; nothing in a record becomes markup."""

import dataclasses
import re

import pytest

from ice_ray.config.run import RunConfig
from ice_ray.hyperparameters import Hyperparameters, IceHyperparameters, searched
from ice_ray.observe.report.axes import horizontal, vertical
from ice_ray.observe.report.figures import timeline, trade_off, why
from ice_ray.observe.report.importance import importances
from ice_ray.observe.report.page import run_page
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.report.savings import savings_of
from ice_ray.observe.trials_table import read_finished, read_trials, write_trials
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.search.run import TrialResult

POINT = IceHyperparameters(2.0, 0.5, 0.01, 0.005, 0.1, 50)


def step(number: int, fallen: float, tuned: bool, seconds: float = 0.0, layers: str = "conv") -> StepRecord:
    """One that falls to `fallen` percent, and is at 97 after a fine-tune of `seconds`; 0.5 s go to the rest."""
    after = 97.0 if tuned else fallen
    return StepRecord(
        step=number, layers=layers, filters_removed=4, unpruned_share=0.9, accuracy_before=98.0,
        accuracy_after_pruning=fallen, accuracy=after, drop=98.0 - after, images_measured=100, fine_tuned=tuned,
        epochs=1.0 * tuned, learning_rate_max=0.01 if tuned else None, scoring_seconds=0.1, removal_seconds=0.1,
        repair_seconds=0.0, measuring_seconds=0.3, fine_tuning_seconds=seconds, flops=2e9,
    )  # fmt: skip


STEPS = (step(1, 97.5, False), step(2, 90.0, True, 4.0), step(3, 96.5, False), step(4, 95.0, True, 2.0))


@pytest.fixture
def run(tmp_path) -> RunRecord:
    """Three trials on the work clock, one of which failed."""
    results = [
        TrialResult(0, POINT, STEPS, "", "here", (False,) * 4, "a GPU"),
        TrialResult(1, dataclasses.replace(POINT, steepness=9), STEPS[:1], "", "there", (True,), "a CPU"),
        TrialResult(2, dataclasses.replace(POINT, steepness=8), (), "diverged", "here", ()),
    ]
    write_trials(tmp_path / "trials.parquet", results)
    best = {
        "trial": 0, "reason": "<script>alert(1)</script>", "clock": "work", "flops_per_second": 1e9, "device": "CPU",
        "original_accuracy": 98.0, "hyperparameters": POINT.as_dict(), "seconds": {"a & b": 1.0}, "work": None,
        "config": RunConfig(model="<b>&").as_dict(), "python": "3", "machine": "m", "packages": {"torch": "2"},
    }  # fmt: skip
    return RunRecord("<i>'\"", "runs/x", best, read_trials(tmp_path / "trials.parquet"), None, ("p 'a' && <b>",))


def test_a_hyperparameter_and_a_step_s_figure_of_one_name_are_told_apart(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own(Hyperparameters):
        epochs: float = searched("epochs")

    path = tmp_path / "trials.parquet"
    write_trials(path, [TrialResult(0, Own(7), STEPS, "", "here", (False,) * 4)])
    (trial,) = read_trials(path)
    assert trial.hyperparameters["epochs"] == 7
    assert [record.epochs for record in trial.records] == [0, 1, 0, 1]
    assert read_finished(path, 0, Own) == Own(7)


def test_what_is_skipped_counts_as_long_as_the_run_s_own_fine_tunes():
    alone = savings_of([STEPS])
    assert (alone.steps, alone.fine_tunes, alone.skipped, alone.mean_seconds) == (4, 2, 2, 3.0)
    assert (alone.spent_seconds, alone.saved_seconds) == (pytest.approx(4 * 0.5 + 6), 6.0)
    assert alone.saved_share == pytest.approx(6 / 14)
    never = (step(1, 97.5, False), step(2, 97.0, False))
    both = savings_of([STEPS, never])
    assert both.saved_seconds == 2 * 3.0 + 2 * 3.0
    retrained = (*STEPS, step(5, 95.0, True, 100.0, FINAL_RETRAINING))
    assert savings_of([retrained]) == alone
    assert savings_of([never]) is None
    assert savings_of([]) is None


def test_why_a_step_was_fine_tuned(run):
    assert why(run, STEPS[1]) == "fine-tuned: the drop of 8.00 reached the threshold of 2 points"
    assert why(run, STEPS[2]) == "not fine-tuned: the drop of 1.50 is below the threshold of 2 points"
    inexact = step(1, 95.9, False)  # the threshold's question was answered from a part of the images
    assert why(run, inexact) == "not fine-tuned, as the pipeline decided"
    assert why(run, step(5, 95.0, True, 1.0, FINAL_RETRAINING)) == "retrained after the last step"


def test_the_search_s_clock_tells_the_time(run):
    assert [candidate.index for candidate in run.candidates] == [0, 1]
    assert [candidate.pruning_seconds for candidate in run.candidates] == [8.0, 2.0]
    figure = trade_off([run])
    assert [mark.kind for mark in figure.marks] == ["on-front", "winner"]
    assert "work clock" in figure.x.title
    assert trade_off([dataclasses.replace(run, trials=run.trials[2:])]) is None


def test_the_timeline_has_every_step_and_what_came_before_a_fine_tune(run):
    figure = timeline(run)
    kinds = ["dense", "skipped", "before", "fine-tuned", "skipped", "before", "fine-tuned"]
    assert [mark.kind for mark in figure.marks] == kinds
    assert [mark.y for mark in figure.marks[2:4]] == [figure.y.place(90.0), figure.y.place(97.0)]
    (limit,) = [line for line in figure.lines if line.kind == "threshold"]
    assert {y for _, y in limit.points} == {figure.y.place(96.0)}


def test_rounds_that_are_rolled_back_and_drops_that_nobody_asked_for(run):
    """Pipelines that train after every removal; a step starts from what stands, not from what was rolled back."""
    back = dataclasses.replace(step(1, 90.0, True, 1.0), accuracy_after_pruning=None, accepted=False)
    again = dataclasses.replace(back, step=2, accepted=True)
    winner = dataclasses.replace(run.trials[0], records=(back, again))
    rounds = dataclasses.replace(run, trials=[winner, *run.trials[1:]])
    figure = timeline(rounds)
    assert [mark.kind for mark in figure.marks] == ["dense", "rolled-back", "fine-tuned"]
    starts = [line.points[0][1] for line in figure.lines if line.kind == "pruned"]
    assert starts == [figure.y.place(98.0)] * 2
    assert "fine-tuned, as the pipeline decided" in figure.marks[1].tip
    page = run_page(rounds)
    assert "; rolled back" in page
    assert "not measured" in page


def test_steps_that_were_not_measured_have_no_place_in_the_timeline(run):
    """The line goes on to the next that was."""
    silent = dataclasses.replace(step(1, 98.0, False), accuracy_after_pruning=None, measured=False, images_measured=0)
    last = dataclasses.replace(step(3, 80.0, False), accuracy_before=98.0)
    winner = dataclasses.replace(run.trials[0], records=(silent, dataclasses.replace(silent, step=2), last))
    own = dataclasses.replace(run, trials=[winner, *run.trials[1:]])
    figure = timeline(own)
    assert [mark.kind for mark in figure.marks] == ["dense", "skipped"]
    assert any(line.kind == "threshold" for line in figure.lines)
    far = dataclasses.replace(winner, hyperparameters=winner.hyperparameters | {"accuracy_drop_threshold": 100.0})
    beyond = dataclasses.replace(own, trials=[far, *run.trials[1:]])
    assert not any(line.kind == "threshold" for line in timeline(beyond).lines)  # no network comes so low
    assert "No network can lose 100 points, the threshold: no step is followed by a fine-tune, and" in run_page(beyond)
    no_question = beyond.best | {"config": beyond.best["config"] | {"threshold": False}}
    assert "No network can lose" not in run_page(dataclasses.replace(beyond, best=no_question))
    assert "reached the threshold of" in run_page(own) and "No network can lose" not in run_page(own)
    (line,) = [line for line in figure.lines if line.kind == "pruned"]
    assert line.points == tuple((mark.x, mark.y) for mark in figure.marks)
    assert run_page(own).count("not measured") == 4  # the drop and the accuracy of two steps


def test_the_time_that_sharing_saved_is_told_where_no_step_was_fine_tuned(run):
    work = {"asked_seconds": 430.0, "seconds": 338.0}
    never = dataclasses.replace(run.trials[0], records=(step(1, 97.5, False),))
    assert "carried out once" not in run_page(run)
    told = run_page(dataclasses.replace(run, trials=[never, *run.trials[1:]], best=run.best | {"work": work}))
    assert "carried out once: 7 min 10 s of pruning in 5 min 38 s of work" in told


def test_nothing_in_a_record_becomes_markup(run):
    page = run_page(run)
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "failed: diverged" in page
    assert "Importance needs at least 4 finished trials; there are 2." in page


def test_the_table_of_trials_has_a_cell_for_every_column_and_their_devices_where_they_differ(run):
    def rows(run: RunRecord) -> list[list[str]]:
        table = run_page(run).partition('<table id="trials-table">')[2].partition("</table>")[0]
        found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[1:]]
        return [row if not row[1].startswith("failed") else [*row[:2], "", "", "", *row[2:]] for row in found]

    head, *body = rows(run)
    assert {len(row) for row in body} == {len(head)}
    assert [row[-1] for row in body] == ["a GPU on here", "a CPU on there", "unknown on here"]
    assert "device of the trials</th><td>a CPU on there; a GPU on here</td>" in run_page(run)
    head, *body = rows(dataclasses.replace(run, trials=[run.trials[0], run.trials[2]]))
    assert {len(row) for row in body} == {len(head)}
    assert not any("here" in cell for row in body for cell in row)


def test_axes_have_room_and_ticks_inside():
    axis = horizontal("steps", [0, 6], whole=True)
    assert axis.start < axis.place(0) < axis.place(6) < axis.end
    assert all(axis.start <= tick.place <= axis.end for tick in axis.ticks)
    assert {tick.label for tick in axis.ticks} <= set("0123456")
    same = vertical("drop", [3.0, 3.0])
    assert same.place(3.0) == pytest.approx((same.start + same.end) / 2)


def test_importance_tells_nothing_where_nothing_varies():
    points = [{"a": float(value), "b": 1.0} for value in range(5)]
    assert importances(points, [1.0] * 5) == {}
    assert importances(points[:3], [1.0, 2.0, 3.0]) == {}
    assert importances([{"a": 1.0}] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) == {}
    assert importances([], []) == {}
    assert importances(points, [1.0, 2.0, float("nan"), 4.0, 5.0]) == {"a": 1.0}
    rates = [{"rate": 10.0**-power, "none": 0.0} for power in range(5)]
    assert importances(rates, list(range(5)), frozenset({"rate", "none"})) == {"rate": 1.0}
