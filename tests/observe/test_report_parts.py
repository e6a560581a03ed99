"""What the report says of a run, from records alone: savings, reasons, places; nothing in a record becomes markup."""

import dataclasses
import math
import re

import pytest

from ice_ray.config.run import RunConfig
from ice_ray.hyperparameters import Hyperparameters, IceHyperparameters, searched
from ice_ray.observe.report.axes import accuracy_bounds, bounds_of, drop_bounds, horizontal, time_bounds, vertical
from ice_ray.observe.report.figures import timeline, trade_off, why
from ice_ray.observe.report.importance import importances
from ice_ray.observe.report.page import run_page
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.report.savings import savings_of
from ice_ray.observe.trials_table import read_finished, read_trials, write_trials
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.trials.run import TrialResult

NOTHING = "\N{EN DASH}"
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
    assert savings_of([(STEPS[1], STEPS[3])]) is None  # none was skipped


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
    assert "no effect" not in page


def test_a_threshold_is_told_where_it_was_asked_and_drawn_where_a_network_comes_so_low(run):
    """That of a pipeline which fine-tunes after every step decides nothing."""
    assert "reached the threshold of 2." in run_page(run)
    assert any(line.kind == "threshold" for line in timeline(run).lines)
    own = run.trials[0].hyperparameters | {"accuracy_drop_threshold": 100.0}
    beyond = dataclasses.replace(run, trials=[dataclasses.replace(run.trials[0], hyperparameters=own), *run.trials[1:]])
    assert not any(line.kind == "threshold" for line in timeline(beyond).lines)
    no_question = run.best | {"config": run.best["config"] | {"threshold": False}}
    assert "reached the threshold of" not in run_page(dataclasses.replace(run, best=no_question))


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
        wide = [int(number) for number in re.findall(r'colspan="(\d)"', table)]
        return [[*row[:1], *wide.pop() * [""], *row[2:]] if row[1].startswith("failed") else row for row in found]

    head, *body = rows(run)
    assert {len(row) for row in body} == {len(head)}
    assert [row[-1] for row in body] == ["a GPU on here", "a CPU on there", "unknown on here"]
    assert "device of the trials</th><td>a CPU on there; a GPU on here</td>" in run_page(run)
    head, *body = rows(dataclasses.replace(run, trials=[run.trials[0], run.trials[2]]))
    assert {len(row) for row in body} == {len(head)}
    assert not any("here" in cell for row in body for cell in row)


def test_axes_have_room_and_ticks_inside():
    axis = horizontal("steps", bounds_of([0, 6]), whole=True)
    assert axis.start < axis.place(0) < axis.place(6) < axis.end
    assert all(axis.start <= tick.place <= axis.end for tick in axis.ticks)
    assert {tick.label for tick in axis.ticks} <= set("0123456")
    same = vertical("drop", drop_bounds([3.0, 3.0]))
    assert same.place(3.0) == pytest.approx((same.start + same.end) / 2)


def test_half_a_point_is_no_cliff():
    for bounds in (accuracy_bounds([92.0, 92.5]), drop_bounds([0.0, 0.5])):
        axis = vertical("accuracy", bounds)
        assert axis.greatest - axis.least >= 5
        assert len(axis.ticks) >= 4
    least, greatest = accuracy_bounds([99.6, 100.0])
    assert greatest < 101 and least < 95.5
    assert accuracy_bounds([20.0, 90.0])[0] < 20
    least, greatest = time_bounds([0.313, 0.317])
    assert greatest - least >= 0.06
    assert time_bounds([0.0, 0.0])[0] < time_bounds([0.0, 0.0])[1]


def cells(page: str, table: str) -> list[list[str]]:
    """The rows of a table of the page, by its id, the head first: text alone."""
    body = page.partition(f'<table id="{table}">')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("<tr")[1:]]
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in rows]


def never_tuned(run: RunRecord, trials: int, *, retrained: bool = False) -> RunRecord:
    """Trials with theta never: no decision hangs on a step, and a part of the images was looked at but for the last."""
    part = dataclasses.replace(step(1, 97.5, False), images_measured=50)
    records = (part, dataclasses.replace(part, step=2, layers="conv2"), step(3, 97.0, False, layers="conv3"))
    point = IceHyperparameters()
    if retrained:
        point = IceHyperparameters(final_epochs=4, final_learning_rate=0.01)
        last = dataclasses.replace(step(4, 97.0, True, 3.0, FINAL_RETRAINING), filters_removed=0, epochs=4)
        records = (*records, last)
    own = dataclasses.replace(run.trials[0], records=records, hyperparameters=point.as_dict(), inherited=0)
    best = run.best | {"seconds": {"stage 1: trials": 9.0, "stage 2, PT: fine-tuning": 0.0}, "trial": 0}
    return dataclasses.replace(
        run, trials=[dataclasses.replace(own, index=index) for index in range(trials)], best=best, kind=type(point)
    )


def test_what_can_hold_nothing_is_not_there(run):
    """One trial, theta never, nothing trained: neither rows nor columns nor charts of what did not happen."""
    page = run_page(never_tuned(run, 1))
    assert "No step was followed by a fine-tune (theta never)." in page
    assert cells(page, "steps-table") == [
        ["step", "layers", "filters removed", "parameters left", "accuracy (%)"],
        ["1", "conv", "4", "90.0%", "≈ 97.50"],
        ["2", "conv2", "4", "90.0%", "≈ 97.50"],
        ["3", "conv3", "4", "90.0%", "97.00"],
    ]
    assert "≈: over 50 of the 100." in page
    assert cells(page, "time-table")[1:] == [["stage 1: trials", "9 s"]]
    assert page.count('<svg class="plot"') == 1
    body = page.partition("<main>")[2].partition("<script>")[0].lower()
    absent = "hyperparameter", "trials-table", "importance", "threshold", "fine-tune", "saved", "theta", "retrain"
    assert not [word for word in absent if word in body]
    rows = [row for table in ("steps-table", "time-table") for row in cells(page, table)]
    assert not [row for row in rows if {"", NOTHING} & set(row)]


def test_a_retraining_at_the_end_is_told_and_columns_are_those_in_which_trials_differ(run):
    mixed, plain = never_tuned(run, 2, retrained=True), never_tuned(run, 1)
    mixed = dataclasses.replace(mixed, trials=[*mixed.trials, dataclasses.replace(plain.trials[0], index=2)])
    page = run_page(mixed)
    assert [mark.kind for mark in timeline(mixed).marks] == ["dense", "skipped", "skipped", "skipped", "fine-tuned"]
    assert "At the end the model was retrained for 4 epochs." in page
    head, *_, last = cells(page, "steps-table")
    assert "fine-tuned" not in head
    assert last == ["end", "retrained for 4 epochs, 3 s", "", "90.0%", "97.00"]
    assert cells(page, "trials-table") == [
        ["trial", "drop (points)", "time (s)", "final epochs"],
        *([name, "1.00", "8.00", "4"] for name in ("0 (winner)", "1")),
        ["2", "1.00", "6.00", "0"],
    ]
    assert cells(page, "hyperparameters-table") == [["name", "value"], ["final epochs", "4"]]
    assert "Not listed: final learning rate 0.01 (the same in every trial that used it)." in page


def test_theta_never_beside_numbers_is_a_word_and_what_it_makes_idle_has_no_value(run):
    never = never_tuned(run, 1).trials[0]
    other = dataclasses.replace(run.trials[0], index=2, hyperparameters=POINT.as_dict() | {"frozen_fraction": 0.0})
    trials = [run.trials[0], dataclasses.replace(never, index=1), other]
    page = run_page(dataclasses.replace(run, trials=trials, kind=type(POINT)))
    head, *rows = cells(page, "trials-table")
    assert head[4:] == ["theta", "eta"]  # the rates are the same wherever they count
    assert [row[4:] for row in rows] == [["2", "0.5"], ["never", NOTHING], ["2", "0"]]


def test_hyperparameters_that_no_fine_tune_used_are_named_in_a_sentence(run):
    """As in a default run where repairs suffice: theta is a number in some trials, and no step was fine-tuned."""
    spared = (step(1, 97.5, False), step(2, 97.0, False))
    points = [
        dataclasses.replace(POINT, accuracy_drop_threshold=theta, final_epochs=epochs, final_learning_rate=0.01)
        for theta in (4.0, 3.0)
        for epochs in map(float, range(8))
    ]

    def trial(index: int, point: IceHyperparameters):
        last = dataclasses.replace(step(3, 97.0, True, 3.0 * point.final_epochs, FINAL_RETRAINING), epochs=1)
        last = dataclasses.replace(last, accuracy=90 + point.final_epochs, drop=8 - point.final_epochs)
        records = (*spared, last) if point.final_epochs else spared
        return dataclasses.replace(run.trials[0], index=index, records=records, hyperparameters=point.as_dict())

    trials = [trial(index, point) for index, point in enumerate(points)]
    default = dataclasses.replace(run, trials=trials, kind=IceHyperparameters)
    page = run_page(default)
    assert [row[0] for row in cells(page, "hyperparameters-table")] == ["name", "final epochs"]
    assert (
        "Not listed: final learning rate 0.01 (the same in every trial that used it); frozen fraction, base learning "
        "rate, learning rate reduction, midpoint pruned share, steepness (used by fine-tunes alone, and no step was "
        "followed by one); accuracy drop threshold (less than 1% of either)."
    ) in page
    assert NOTHING not in page.partition('<h2 id="hyperparameters">')[2].partition("</section>")[0]
    config = run.best["config"] | {"final": {"epochs": 1}}  # whose rate is eq. 1's
    assert "used by fine-tunes alone" not in run_page(dataclasses.replace(default, best=run.best | {"config": config}))


def test_training_that_made_a_trial_worse_is_told_in_a_line_and_in_its_row(run):
    wrecked = (STEPS[0], dataclasses.replace(STEPS[1], accuracy=40.0, drop=58.0))
    wild = dataclasses.replace(run.trials[0], index=1, records=wrecked)
    page = run_page(dataclasses.replace(run, trials=[run.trials[0], wild, run.trials[2]], kind=IceHyperparameters))
    line = (
        "the fine-tune after step 2 at a learning rate of 0.01 took the accuracy from 90.00% down to 40.00%: "
        "base_learning_rate is probably too high (--space)."
    )
    assert f"Training made 1 trial worse. In trial 1, {line}" in page
    assert [row[1] for row in cells(page, "trials-table")[1:3]] == ["1.00", "58.00worse for training"]
    assert "worse for training" not in run_page(run)
    won = dataclasses.replace(run, trials=[dataclasses.replace(wild, index=0)], kind=IceHyperparameters)
    assert f"In this trial, {line}" in run_page(won)


def test_importance_of_what_may_be_never_and_of_what_it_makes_idle():
    """Without an effect there, a value is not what a trial differs by."""
    never = [{"theta": math.inf, "epochs": float(epochs)} for epochs in (0, 1, 2, 4)]
    numbers = [{"theta": 1.0, "rate": 0.01, "epochs": float(epochs)} for epochs in (0, 1, 2, 4)]
    found = importances([*never, *numbers], [9.0] * 4 + [1.0] * 4)
    assert set(found) == {"theta", "epochs"}
    assert found["theta"] > 0.9


def test_importance_tells_nothing_where_nothing_varies():
    points = [{"a": float(value), "b": 1.0} for value in range(5)]
    assert importances(points, [1.0] * 5) == {}
    assert importances(points[:3], [1.0, 2.0, 3.0]) == {}
    assert importances([{"a": 1.0}] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) == {}
    assert importances([], []) == {}
    assert importances(points, [1.0, 2.0, float("nan"), 4.0, 5.0]) == {"a": 1.0}
    rates = [{"rate": 10.0**-power, "none": 0.0} for power in range(5)]
    assert importances(rates, list(range(5)), frozenset({"rate", "none"})) == {"rate": 1.0}
