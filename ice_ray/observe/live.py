"""What is going on, on a terminal: a few lines that change in place below those that stay. A log has none of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ice_ray.errors import RunError, UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objectives import Candidate
from ice_ray.observe.pace import Pace
from ice_ray.observe.terminal import console
from ice_ray.observe.words import duration, roughly

_MOST_SHOWN = 8


class _StillLive(Live):
    """Draws again only what has changed: drawing the same anew flickers, and fills the record of a terminal."""

    _shown: object = None

    def refresh(self) -> None:
        lines = self.console.render_lines(self.get_renderable(), pad=False)
        if lines != self._shown:
            self._shown = lines
            super().refresh()


@contextmanager
def shown_live(render: Callable[[], RenderableType]) -> Iterator[None]:
    """While the block runs, show what `render` gives, looked at four times a second; nowhere but on a terminal."""
    if not console.is_terminal:
        yield
        return
    with _StillLive(console=console, get_renderable=render, refresh_per_second=4, transient=True):
        yield


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """While the block runs, say what takes so long, and how long it has."""
    began = time.monotonic()
    with shown_live(lambda: one_line(f"{what}, {duration(int(time.monotonic() - began))}", "dim")):
        yield


def one_line(text: str, style: str) -> Text:
    """Text that is cut where the terminal ends."""
    return Text(text, style=style, overflow="ellipsis", no_wrap=True)


def place(taken: int, length: int, retrains: bool) -> str:
    """Where a run is that has taken so many rounds.

    >>> [place(taken, 9, True) for taken in (3, 9, 10)], place(9, 9, False)
    (['step 4/9', 'retraining', 'ending'], 'ending')
    """
    if taken < length:
        return f"step {taken + 1}/{length}"
    return "retraining" if taken == length and retrains else "ending"


@dataclass
class SearchView:
    """Stage 1 as it stands.

    Attributes:
        total: trials of the search.
        length: pruning steps of a trial at most.
        retrains: whether trials are retrained after the last one, which is a round more.
        choose: the index of the best of the finished trials.
        steps: of every trial that has begun, how many rounds it has taken.
        ended: trials that have, with whether they failed.
    """

    total: int
    length: int
    choose: Callable[[Sequence[Candidate]], int]
    retrains: bool = False
    steps: dict[str, int] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    ended: dict[str, bool] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    costs: dict[int, float] = field(default_factory=dict)
    points: dict[int, Hyperparameters] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    pace: Pace = field(default_factory=Pace)

    def render(self) -> RenderableType:
        """Counts and time left; the best so far; where the running trials are."""
        now = time.monotonic()
        failed = sum(self.ended.values())
        running = f"{len(self.running)} running" if self.running or self.ended else "starting"
        counts = f"stage 1: {len(self.ended) - failed}/{self.total} trials done, {running}"
        counts += f", {failed} failed" if failed else ""
        left = self.seconds_left(now)
        counts += f"; {duration(int(now - self.began))} so far" + (
            f", {roughly(left)} left" if left is not None else ""
        )
        lines: list[RenderableType] = [one_line(counts, "bold")]
        with suppress(RunError, UserError):  # none to choose from yet, or an objective that the end will speak of
            lines.append(one_line(f"  best so far: {self._best()}", "none"))
        shown = sorted(self.running)[:_MOST_SHOWN]
        if shown:
            places = ", ".join(f"{name} {self._place(name)}" for name in shown)
            more = f" and {len(self.running) - len(shown)} more" if len(self.running) > len(shown) else ""
            lines.append(one_line(f"  {places}{more}", "dim"))
        return Group(*lines)

    def began_trial(self, name: str, now: float) -> None:
        """A trial has a process of its own: until then that was being started."""
        self.running.add(name)
        self.pace.begin(now)

    def took(self, name: str, step: int, now: float) -> None:
        """A trial has taken a step."""
        self.steps[name] = step
        self.pace.reach(self._done(), now)

    def seconds_left(self, now: float) -> float | None:
        """By the rounds that are left, were they all to take as long as those so far; None before a trial has ended."""
        return self.pace.left(self.total * self._rounds - self._done(), now) if self.ended else None

    @property
    def _rounds(self) -> int:
        return self.length + self.retrains

    def _done(self) -> int:
        return sum(self._rounds if name in self.ended else taken for name, taken in self.steps.items())

    def _place(self, name: str) -> str:
        return place(self.steps.get(name, 0), self.length, self.retrains)

    def _best(self) -> str:
        index = self.choose(self.candidates)
        own = next(candidate for candidate in self.candidates if candidate.index == index)
        what = f"cost {self.costs[index]:.4f}, drop {own.drop:.2f} points in {own.pruning_seconds:.1f} s"
        return f"trial {index}, {what} [{self.points[index]}]"


class LiveCallback(tune.Callback):
    """Keeps a view up to date. Tune pickles callbacks; what it would get back is looked at by nobody."""

    def __init__(self, view: SearchView, kind: type[Hyperparameters]) -> None:
        self._view, self._kind = view, kind

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._view.began_trial(str(trial), time.monotonic())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._view.running.add(str(trial))
        if "step" in result:
            self._view.took(str(trial), int(result["step"]), time.monotonic())
        else:
            self._view.running.discard(str(trial))  # it waits for what another is at

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result or {}
        self._view.running.discard(str(trial))
        self._view.ended[str(trial)] = bool(result.get("failure")) or "cost" not in result
        self._view.took(str(trial), self._view.steps.get(str(trial), 0), time.monotonic())
        if not self._view.ended[str(trial)]:
            index, point = trial.config["point"]["index"], trial.config["point"]["hyperparameters"]
            figures = (float(result[name]) for name in ("pruning_seconds", "drop", "unpruned_share"))
            self._view.candidates.append(Candidate(index, *figures))
            self._view.costs[index] = float(result["cost"])
            self._view.points[index] = self._kind.from_mapping(point)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._view.running.discard(str(trial))


@dataclass
class ReplayView:
    """Stage 2 as it stands.

    Attributes:
        length: pruning steps at most.
        retraining: the epochs of a retraining that comes after them; each is taken to be worth a step.
        taken: rounds so far, those of an earlier part of the run included.
    """

    length: int
    retraining: float = 0.0
    taken: int = 0
    accuracy: float | None = None
    began: float = field(default_factory=time.monotonic)
    pace: Pace = field(default_factory=Pace)
    _resumed: int | None = None

    def start(self, taken: int, now: float) -> None:
        """The workers have started, and take the step after so many: nothing before that tells how long one is."""
        self.taken = self._resumed = taken
        self.pace.begin(now)

    def took(self, taken: int, accuracy: float | None, now: float) -> None:
        """So many steps have been taken; the accuracy after the last one, where it was measured."""
        self.taken, self.accuracy = taken, accuracy
        self.pace.reach(taken - (self._resumed or 0), now)

    def render(self) -> RenderableType:
        """The step at hand, accuracy, time."""
        now = time.monotonic()
        where = "starting" if self._resumed is None else place(self.taken, self.length, self.retraining > 0)
        line = f"stage 2: {where}; {duration(int(now - self.began))} so far"
        steps, after = max(0, self.length - self.taken), self.retraining if self.taken <= self.length else 0.0
        left = self.pace.left(steps + after, now, 1.0 if steps else after)
        if left is not None:
            line += f", {roughly(left)} left"
        if self.accuracy is not None:
            line += f"; {self.accuracy:.2f}% on the validation images"
        return one_line(line, "bold")
