"""The live view of both stages: what it says, and that a log has none of it."""

import io
import time

import pyte
import pytest
from rich.console import Console

from ice_ray.hyperparameters import IceHyperparameters
from ice_ray.objectives import Candidate, objective_named
from ice_ray.observe import live
from ice_ray.observe import terminal as terminal_lines
from ice_ray.observe.live import ReplayView, SearchView, shown_live, waiting

POINT = IceHyperparameters(0.5, 0.3, 0.01, 0.005, 0.15, 50)


def text_of(renderable, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def view() -> SearchView:
    return SearchView(4, 9, lambda found: objective_named("auto").choose(found).index)


def test_before_anything_has_ended_there_is_no_guess(view):
    assert text_of(view.render()) == ["stage 1: 0/4 trials done, starting; 0 s so far"]
    view.began_trial("trial-000", view.began + 10)
    view.began_trial("trial-001", view.began + 12)
    view.took("trial-000", 3, view.began + 40)
    assert text_of(view.render()) == [
        "stage 1: 0/4 trials done, 2 running; 0 s so far",
        "  trial-000 step 4/9, trial-001 step 1/9",
    ]
    assert view.seconds_left(view.began + 100) is None


def test_the_best_so_far_and_what_is_left(view):
    """18 rounds of 36 in 90 s, counted from the first trial's start; the time since the last round has passed too."""
    view.began -= 120
    start = view.began + 30
    view.began_trial("trial-000", start)
    view.ended["trial-000"] = False
    view.took("trial-000", 9, start + 50)
    view.ended["trial-001"] = True
    view.took("trial-001", 2, start + 90)
    view.began_trial("trial-002", start + 90)
    view.running.discard("trial-000")
    view.candidates.append(Candidate(0, 20.0, 1.25))
    view.points[0] = POINT
    view.costs[0] = 1.25 / 20
    assert view.seconds_left(start + 90) == pytest.approx(90)
    assert view.seconds_left(start + 94) == pytest.approx(86)
    first, best, running = text_of(view.render(), 140)
    assert first == "stage 1: 1/4 trials done, 1 running, 1 failed; 2 min so far, about 2 min left"
    assert best == f"  best so far: trial 0, cost 0.0625, drop 1.25 points in 20.0 s [{POINT}]"
    assert running == "  trial-002 step 1/9"


def test_many_running_trials_take_one_line(view):
    view.running |= {f"trial-{number:03d}" for number in range(200)}
    lines = text_of(view.render(), 80)
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)


def test_stage_2_counts_from_where_it_went_on():
    """Only steps tell how long steps are, not the start of the workers and the probe before the first."""
    view = ReplayView(9)
    view.began -= 60
    assert text_of(view.render()) == ["stage 2: starting; 1 min so far"]
    now = view.began + 60
    view.start(3, now - 30)
    assert text_of(view.render()) == ["stage 2: step 4/9; 1 min so far"]
    view.took(6, 81.5, now)
    assert text_of(view.render()) == [
        "stage 2: step 7/9; 1 min so far, about 30 s left; 81.50% on the validation images"
    ]


def test_a_retraining_is_a_round_after_the_last_step(view):
    replay = ReplayView(9, retraining=4.0)
    replay.began -= 300
    now = replay.began + 30
    replay.start(0, now)
    replay.took(9, 70.0, now + 270)
    assert replay.pace.left(1, now + 270) == pytest.approx(30)
    assert text_of(replay.render())[0].startswith("stage 2: retraining; 5 min so far, about 2 min left")  # 4 epochs
    view.retrains = True
    view.began_trial("trial-000", now)
    view.ended["trial-000"] = False
    view.took("trial-000", 10, now + 100)
    view.began_trial("trial-001", now)
    view.took("trial-001", 9, now + 100)
    assert text_of(view.render())[-1].endswith("trial-001 retraining")
    assert view.seconds_left(now + 100) == pytest.approx(100 * (40 - 19) / 19)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_is_shown_on_a_terminal_and_nowhere_else(view, monkeypatch, is_terminal):
    written = io.StringIO()
    monkeypatch.setattr(live, "console", Console(file=written, force_terminal=is_terminal, width=80))
    with shown_live(view.render):
        live.console.print("a line that stays")
    assert "a line that stays" in written.getvalue()
    assert ("stage 1: 0/4" in written.getvalue()) == is_terminal
    assert ("\x1b" in written.getvalue()) == is_terminal


def drawn(screen: pyte.Screen, console: Console) -> list[str]:
    """What a terminal of that size shows of all that has been written."""
    stream = pyte.Stream(screen)
    stream.feed(console.file.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def terminal(monkeypatch) -> Console:
    """One of 60 columns, for the view and for lines that stay."""
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=24, soft_wrap=True, highlight=False)
    monkeypatch.setattr(live, "console", console)
    monkeypatch.setattr(terminal_lines, "console", console)
    return console


def test_lines_that_stay_are_above_those_that_change_and_nothing_is_left_of_these(view, terminal):
    view.began_trial("trial-000", view.began)
    with shown_live(view.render):
        wait_for("0/4", terminal)
        terminal_lines.say("one")
        view.ended["trial-000"] = True
        wait_for("1 failed", terminal)
        terminal_lines.warn("two")
        assert [line.split(";")[0] for line in drawn(pyte.Screen(60, 24), terminal)] == [
            "one",
            "warning: two",
            "stage 1: 0/4 trials done, 1 running, 1 failed",
            "  trial-000 step 1/9",
        ]
    terminal_lines.say("three")
    assert drawn(pyte.Screen(60, 24), terminal) == ["one", "warning: two", "three"]


def test_what_has_not_changed_is_not_drawn_again(terminal):
    with shown_live(lambda: live.one_line("the same", "bold")):
        wait_for("the same", terminal)
        time.sleep(1)  # four more looks
        assert terminal.file.getvalue().count("the same") == 1


def test_a_block_that_takes_long_says_what_it_is_at(terminal):
    with waiting("reading"):
        wait_for("reading, 1 s", terminal)
    assert drawn(pyte.Screen(60, 24), terminal) == []


def test_a_line_too_long_for_a_terminal_is_broken_between_words_and_in_a_log_not_at_all(terminal, monkeypatch):
    line = "  winner: " + "word " * 12 + "jobs/ice_prune.py --resume"
    terminal_lines.say(line)
    shown = drawn(pyte.Screen(60, 24), terminal)
    assert len(shown) == 2
    assert shown[1].startswith("      word")
    assert [word for part in shown for word in part.split()] == line.split()
    log = io.StringIO()
    monkeypatch.setattr(terminal_lines, "console", Console(file=log, width=60, soft_wrap=True))
    terminal_lines.warn(line.strip())
    terminal_lines.say("of two" + chr(10) + "lines" + chr(27) + "[2J")
    assert log.getvalue() == f"warning: {line.strip()}\nof two lines\\x1b[2J\n"


def wait_for(text: str, console: Console) -> None:
    ends = time.monotonic() + 20
    while text not in console.file.getvalue():
        assert time.monotonic() < ends, f"never shown: {text}"
        time.sleep(0.02)
