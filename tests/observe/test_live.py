"""The live view of both stages: what it says, and that a log has none of it."""

import io

import pytest
from rich.console import Console

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.objectives import Candidate, objective_named
from ice_ray.observe import live
from ice_ray.observe.live import ReplayView, SearchView, shown_live

POINT = IceHyperparameters(0.5, 0.3, 0.01, 0.005, 0.15, 50)


def text_of(renderable, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def view() -> SearchView:
    return SearchView(4, 9, lambda found: objective_named("auto").choose(found).index)


def test_before_anything_has_ended_there_is_no_guess(view):
    view.running |= {"trial-000", "trial-001"}
    view.steps["trial-000"] = 3
    assert text_of(view.render()) == [
        "stage 1: 0/4 trials done, 2 running",
        "  trial-000 step 4/9, trial-001 step 1/9",
    ]
    assert view.seconds_left(view.began + 100) is None


def test_the_best_so_far_and_what_is_left(view):
    view.steps |= {"trial-000": 9, "trial-001": 9, "trial-002": 0}
    view.ended |= {"trial-000": False, "trial-001": True}
    view.running.add("trial-002")
    view.candidates.append(Candidate(0, 20.0, 1.25))
    view.costs[0], view.points[0] = 1.0625, POINT
    view.began -= 60
    assert view.seconds_left(view.began + 90) == pytest.approx(90)  # 18 rounds of 36 in 90 s
    first, best, running = text_of(view.render(), 140)
    assert first == "stage 1: 1/4 trials done, 1 running, 1 failed, about 1 min left"
    assert best == f"  best so far: trial 0, drop 1.25 points in 20.0 s, cost 1.0625 [{POINT}]"
    assert running == "  trial-002 step 1/9"


def test_many_running_trials_take_one_line(view):
    view.running |= {f"trial-{number:03d}" for number in range(200)}
    lines = text_of(view.render(), 80)
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)


def test_stage_2_counts_from_where_it_went_on():
    view = ReplayView(9)
    view.taken = view.resumed = 3
    view.began -= 30
    assert text_of(view.render()) == ["stage 2: step 4/9, 30 s so far"]
    view.taken, view.accuracy = 6, 81.5
    assert text_of(view.render()) == ["stage 2: step 7/9, 30 s so far, about 30 s left; 81.50% on the decision images"]
    view.taken = 10  # the retraining at the end is a round more
    assert text_of(view.render())[0].startswith("stage 2: step 9/9")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_is_shown_on_a_terminal_and_nowhere_else(view, monkeypatch, is_terminal):
    written = io.StringIO()
    monkeypatch.setattr(live, "console", Console(file=written, force_terminal=is_terminal, width=80))
    with shown_live(view.render):
        live.console.print("a line that stays")
    assert "a line that stays" in written.getvalue()
    assert ("stage 1: 0/4" in written.getvalue()) == is_terminal
    assert ("\x1b" in written.getvalue()) == is_terminal
