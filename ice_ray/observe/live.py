"""What is going on, on a terminal: a few lines that change in place below those that stay. A log has none of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ice_ray.hyperparameters import Hyperparameters
from ice_ray.objectives import Candidate
from ice_ray.observe.terminal import console

_MOST_SHOWN = 8


@contextmanager
def shown_live(render: Callable[[], RenderableType]) -> Iterator[None]:
    """While the block runs, show what `render` gives, four times a second; nowhere but on a terminal."""
    if not console.is_terminal:
        yield
        return
    with Live(console=console, get_renderable=render, refresh_per_second=4, transient=True):
        yield


@dataclass
class SearchView:
    """Stage 1 as it stands.

    Attributes:
        total: trials of the search.
        length: rounds of a trial at most.
        choose: the index of the best of the finished trials.
        steps: of every trial that has begun, how many rounds it has taken.
        ended: trials that have, with whether they failed.
    """

    total: int
    length: int
    choose: Callable[[Sequence[Candidate]], int]
    steps: dict[str, int] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    ended: dict[str, bool] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    costs: dict[int, float] = field(default_factory=dict)
    points: dict[int, Hyperparameters] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def render(self) -> RenderableType:
        """Counts and time left; the best so far; where the running trials are."""
        failed = sum(self.ended.values())
        counts = f"stage 1: {len(self.ended) - failed}/{self.total} trials done, {len(self.running)} running"
        counts += f", {failed} failed" if failed else ""
        left = self.seconds_left(time.monotonic())
        lines = [Text(counts + (f", about {in_words(left)} left" if left is not None else ""), style="bold")]
        if self.candidates:
            lines.append(Text(f"  best so far: {self._best()}", overflow="ellipsis", no_wrap=True))
        shown = sorted(self.running)[:_MOST_SHOWN]
        if shown:
            places = ", ".join(f"{name} step {self.steps.get(name, 0) + 1}/{self.length}" for name in shown)
            more = f" and {len(self.running) - len(shown)} more" if len(self.running) > len(shown) else ""
            lines.append(Text(f"  {places}{more}", style="dim", overflow="ellipsis", no_wrap=True))
        return Group(*lines)

    def seconds_left(self, now: float) -> float | None:
        """By the rounds that are left, were they all to take as long as those so far; None before a trial has ended."""
        if not self.ended:
            return None
        done = sum(self.length if name in self.ended else taken for name, taken in self.steps.items())
        return (now - self.began) * (self.total * self.length - done) / done if done else None

    def _best(self) -> str:
        index = self.choose(self.candidates)
        own = next(candidate for candidate in self.candidates if candidate.index == index)
        what = f"drop {own.drop:.2f} points in {own.pruning_seconds:.1f} s, cost {self.costs[index]:.4f}"
        return f"trial {index}, {what} [{self.points[index]}]"


class LiveCallback(tune.Callback):
    """Keeps a view up to date. Tune pickles callbacks; what it would get back is looked at by nobody."""

    def __init__(self, view: SearchView, kind: type[Hyperparameters]) -> None:
        self._view, self._kind = view, kind

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._view.running.add(str(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._view.running.add(str(trial))
        if "step" in result:
            self._view.steps[str(trial)] = int(result["step"])
        else:
            self._view.running.discard(str(trial))  # it waits for what another is at

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result or {}
        self._view.running.discard(str(trial))
        self._view.ended[str(trial)] = bool(result.get("failure")) or "cost" not in result
        self._view.steps.setdefault(str(trial), 0)
        if not self._view.ended[str(trial)]:
            index, point = trial.config["point"]["index"], trial.config["point"]["hyperparameters"]
            figures = (float(result[name]) for name in ("pruning_seconds", "drop", "unpruned_share"))
            self._view.candidates.append(Candidate(index, *figures))
            self._view.costs[index] = result["cost"]
            self._view.points[index] = self._kind.from_mapping(point)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._view.running.discard(str(trial))


@dataclass
class ReplayView:
    """Stage 2 as it stands.

    Attributes:
        length: rounds at most.
        taken: rounds so far, those of an earlier part of the run included.
        resumed: those of that part.
    """

    length: int
    taken: int = 0
    resumed: int = 0
    accuracy: float | None = None
    began: float = field(default_factory=time.monotonic)

    def render(self) -> RenderableType:
        """The step at hand, accuracy, time."""
        now = time.monotonic()
        line = f"stage 2: step {min(self.taken + 1, self.length)}/{self.length}, {in_words(now - self.began)} so far"
        own = self.taken - self.resumed
        if own:
            line += f", about {in_words((now - self.began) * max(0, self.length - self.taken) / own)} left"
        if self.accuracy is not None:
            line += f"; {self.accuracy:.2f}% on the decision images"
        return Text(line, style="bold")


def in_words(seconds: float) -> str:
    """Of a duration, as much as one wants to know.

    >>> [in_words(seconds) for seconds in (0.4, 59, 90, 3700)]
    ['0 s', '59 s', '2 min', '1 h 2 min']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60 + 1e-9) or 1
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
