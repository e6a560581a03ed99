"""Where things lie in a figure: from values to places in an SVG, and the ticks of both axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 44
_MARGIN = 0.06


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    place: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Values from `least` to `greatest` over the places from `start` to `end`, in the units of the view box."""

    title: str
    least: float
    greatest: float
    start: float
    end: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.least) / (self.greatest - self.least)
        return round(self.start + share * (self.end - self.start), 2)


def horizontal(title: str, values: Sequence[float], whole: bool = False) -> Axis:
    """An axis from left to right; with `whole` its ticks are at whole numbers."""
    return _axis(title, values, _LEFT, WIDTH - _RIGHT, whole)


def vertical(title: str, values: Sequence[float]) -> Axis:
    """An axis from the bottom up."""
    return _axis(title, values, HEIGHT - _BOTTOM, _TOP, False)


def _axis(title: str, values: Sequence[float], start: float, end: float, whole: bool) -> Axis:
    least, greatest = min(values), max(values)
    room = _MARGIN * (greatest - least) or 0.5
    axis = Axis(title, least - room, greatest + room, start, end, ())
    places = MaxNLocator(nbins=6, integer=whole).tick_values(axis.least, axis.greatest)
    inside = [float(value) for value in places if axis.least <= value <= axis.greatest]
    return Axis(
        title, axis.least, axis.greatest, start, end, tuple(Tick(axis.place(value), f"{value:g}") for value in inside)
    )
