"""Where things lie in a figure: from values to places in an SVG, and the ticks of both axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 44
_MARGIN = 0.06
_POINTS = 5.0


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


def horizontal(title: str, bounds: tuple[float, float], whole: bool = False) -> Axis:
    """An axis from left to right; with `whole` its ticks are at whole numbers."""
    return _axis(title, bounds, _LEFT, WIDTH - _RIGHT, whole)


def vertical(title: str, bounds: tuple[float, float]) -> Axis:
    """An axis from the bottom up."""
    return _axis(title, bounds, HEIGHT - _BOTTOM, _TOP, False)


def bounds_of(values: Sequence[float], span: float = 0.0, most: float | None = None) -> tuple[float, float]:
    """Of an axis that has room for all values, and shows no less than `span`: a small difference must look small.

    Args:
        most: what no value can be above, so that the axis needs not go on there.
    """
    least, greatest = min(values), max(values)
    shown = max(span, greatest - least) or 1.0
    middle, half = (least + greatest) / 2, shown * (0.5 + _MARGIN)
    over = 0.0 if most is None else max(0.0, middle + half - most - shown * _MARGIN)
    return middle - half - over, middle + half - over


def accuracy_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis of accuracies, percent: 5 points at least."""
    return bounds_of(values, _POINTS, 100.0)


def drop_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis of accuracy drops: 5 points at least."""
    return bounds_of(values, _POINTS)


def time_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis of seconds: a fifth of the longest at least."""
    return bounds_of(values, 0.2 * max(values))


def _axis(title: str, bounds: tuple[float, float], start: float, end: float, whole: bool) -> Axis:
    axis = Axis(title, *bounds, start, end, ())
    places = MaxNLocator(nbins=6, integer=whole).tick_values(*bounds)
    ticks = [float(value) for value in places if axis.least <= value <= axis.greatest]
    return dataclasses.replace(axis, ticks=tuple(Tick(axis.place(value), f"{value:g}") for value in ticks))
