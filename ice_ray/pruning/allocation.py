"""Which layer loses how many filters: the widths with the least loss under budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.amounts import Amounts

Array = npt.NDArray[np.float64]
_MOST_STATES, _CELLS = 4_000, 1_000
_MOST_COMPARED = 400
_MOST_WIDTHS = 64
"""Of a unit that the dynamic program chooses from; what is found is mended filter by filter."""
_ROUNDS = 8
_NARROWEST = 8
"""No layer is left less than one in so many of its filters, if a target can be reached so."""
_SLACK = 1e-12
"""Sums of shares differ by their last bits."""


@dataclass(frozen=True)
class Curve:
    """What a unit's widths cost.

    Attributes:
        unit: whose filters go.
        losses: by width: filters kept, and what is lost with so many. The widest is the dense one, which loses nothing.
    """

    unit: PrunableUnit
    losses: Mapping[int, float]

    @property
    def widths(self) -> list[int]:
        """Ascending."""
        return sorted(self.losses)


def allowed(curve: Curve, amounts: Amounts, narrowest: bool = False, widest: int | None = None) -> Curve:
    """A curve with the widths that may be chosen alone: multiples of `amounts.round_to`, what its own ratio leaves,
    and none below an eighth of the filters.

    Args:
        narrowest: allow less than an eighth.
        widest: filters that the rung above has left: what has gone stays away.
    """
    unit, losses = curve.unit, curve.losses
    own = amounts.own_ratio(unit.layer)
    if own is not None:
        width = unit.filters - amounts.removed(unit)
        return Curve(unit, {width: losses[width]})
    least = 1 if narrowest else math.ceil(unit.filters / _NARROWEST)
    most = unit.filters if widest is None else widest
    widths = [width for width in losses if width == amounts.rounded(unit, width) and least <= width <= most]
    return Curve(unit, {width: losses[width] for width in widths or [most]})


def least_loss(losses: Sequence[Array], costs: Sequence[Array], budgets: Array) -> tuple[int, ...] | None:
    """Of several choices, one option each, such that the losses' sum is least and no cost's sum is above its budget.

    A dynamic program over the sets of choices that none betters in all costs and the loss. It is exact as long as
    these are few; of more, the best in each of some thousand intervals of cost is kept, so that a budget still holds.

    Args:
        losses: per choice, (options,).
        costs: per choice, (options, budgets).
        budgets: (budgets,).

    Returns:
        The option of each choice; None where nothing is within the budgets.
    """
    total, spent = np.zeros(1), np.zeros((1, len(budgets)))
    came: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    rest = np.array([each.min(axis=0) for each in costs])[::-1].cumsum(axis=0)[::-1]  # what those to come take at least
    for number, (loss, cost) in enumerate(zip(losses, costs, strict=True)):
        sums = (total[:, None] + loss).ravel()
        spends = (spent[:, None, :] + cost).reshape(-1, len(budgets))
        coming = rest[number + 1] if number + 1 < len(costs) else 0.0
        kept = np.flatnonzero((spends + coming <= budgets + _SLACK).all(axis=1))
        if not len(kept):
            return None
        kept = kept[_not_bettered(sums[kept], spends[kept], budgets)]
        total, spent = sums[kept], spends[kept]
        came.append((kept // len(loss), kept % len(loss)))
    state, chosen = int(total.argmin()), list[int]()
    for origin, option in reversed(came):
        chosen.append(int(option[state]))
        state = int(origin[state])
    return tuple(reversed(chosen))


def _not_bettered(losses: Array, costs: Array, budgets: Array) -> npt.NDArray[np.int64]:
    """Indices of states that no other betters or equals in loss and all costs; where they are too many, of the best
    by interval of cost.
    """
    order = np.lexsort((losses, *costs.T[::-1]))
    if costs.shape[1] == 1:
        least = np.minimum.accumulate(losses[order])
        order = order[np.concatenate(([True], losses[order][1:] < least[:-1]))]
    elif len(order) <= _MOST_COMPARED:
        table = np.column_stack([losses, costs])[order]
        order = order[[not (table[:row] <= table[row]).all(axis=1).any() for row in range(len(table))]]
    if len(order) <= (_MOST_STATES if costs.shape[1] == 1 else _MOST_COMPARED):
        return order
    a_side = max(2, round(_CELLS ** (1 / costs.shape[1])))
    # What is measured may cost less at more filters than at the fewest: less than nothing.
    least = np.minimum(costs.min(axis=0), 0)
    parts = (costs[order] - least) / np.maximum(budgets - least, _SLACK)
    cells = np.minimum((parts * a_side).astype(np.int64), a_side)
    number = np.ravel_multi_index(tuple(cells.T), (a_side + 1,) * costs.shape[1])
    best = np.lexsort((losses[order], number))
    first = np.concatenate(([True], number[best][1:] != number[best][:-1]))
    return order[best[first]]


class Costs(Protocol):
    """What widths cost, as shares of the dense network's quantities; `Footprint` says more."""

    def share(self, quantity: str, widths: Mapping[str, int]) -> float:
        """What is left of a quantity with these widths; units not named are whole."""

    def along(self, quantity: str, widths: Mapping[str, int], unit: PrunableUnit) -> Array:
        """(filters + 1,) the same with this unit's filters from none to all kept, the others' as given."""


def allocate(curves: Sequence[Curve], footprint: Costs, budgets: Mapping[str, float]) -> dict[str, int] | None:
    """The widths that lose least under budgets of `macs` and `params`, as shares of the dense network's.

    Where neighbours both lose filters, what a width costs depends on the others: it is counted at the widths found
    last, until they are found again. What is found is then mended width by width, so that no budget is exceeded, and
    no unit could have its next greater width without exceeding one.

    Returns:
        By layer, filters kept; None where even the narrowest widths exceed a budget.
    """
    problem = _Allocation(curves, footprint, budgets)
    narrowest = {curve.unit.layer: curve.widths[0] for curve in curves}
    if problem.exceeds(narrowest):
        return None
    widths, best = narrowest, problem.topped_up(narrowest)
    for _ in range(_ROUNDS):
        found = problem.solved_at(widths)
        if found is None or found == widths:
            break
        mended = problem.topped_up(problem.cut_down(found))
        best = min(best, mended, key=problem.loss)
        widths = found
    return best


def _some(widths: Sequence[int]) -> list[int]:
    """All, or as many as the dynamic program takes, evenly spaced, the narrowest and the widest among them."""
    if len(widths) <= _MOST_WIDTHS:
        return list(widths)
    return [widths[round(place * (len(widths) - 1) / (_MOST_WIDTHS - 1))] for place in range(_MOST_WIDTHS)]


class _Allocation:
    def __init__(self, curves: Sequence[Curve], footprint: Costs, budgets: Mapping[str, float]) -> None:
        self._curves, self._footprint, self._names = curves, footprint, list(budgets)
        self._limits = np.array([budgets[name] for name in self._names])

    def spent(self, widths: Mapping[str, int]) -> Array:
        return np.array([self._footprint.share(name, widths) for name in self._names])

    def exceeds(self, widths: Mapping[str, int]) -> bool:
        return bool((self.spent(widths) > self._limits + _SLACK).any())

    def loss(self, widths: Mapping[str, int]) -> float:
        return sum(curve.losses[widths[curve.unit.layer]] for curve in self._curves)

    def solved_at(self, widths: Mapping[str, int]) -> dict[str, int] | None:
        """With what each width spends where the others are as given."""
        options, losses, costs = list[list[int]](), list[Array](), list[Array]()
        room = self._limits - self.spent(widths)
        for curve in self._curves:
            own = np.column_stack([self._footprint.along(name, widths, curve.unit) for name in self._names])
            least, some = own[curve.widths[0]], _some(curve.widths)
            options.append(some)
            losses.append(np.array([curve.losses[width] for width in some]))
            costs.append(own[some] - least)
            room = room + own[widths[curve.unit.layer]] - least
        chosen = least_loss(losses, costs, room)
        if chosen is None:
            return None
        layers = (curve.unit.layer for curve in self._curves)
        return {layer: own[option] for layer, own, option in zip(layers, options, chosen, strict=True)}

    def cut_down(self, widths: dict[str, int]) -> dict[str, int]:
        """Narrower, the least loss for what it saves first, until no budget is exceeded."""
        while self.exceeds(widths):
            over = np.maximum(self.spent(widths) - self._limits, 0)
            candidates = [own for curve in self._curves if (own := self._next(widths, curve, -1)) is not None]

            def price(own: dict[str, int]) -> float:
                saved = float(np.minimum(self.spent(widths) - self.spent(own), over).sum())  # noqa: B023
                return (self.loss(own) - self.loss(widths)) / saved if saved > 0 else math.inf  # noqa: B023

            widths = min(candidates, key=price)
        return widths

    def topped_up(self, widths: dict[str, int]) -> dict[str, int]:
        """Wider, the greatest gain for what it spends first, as long as no budget is exceeded."""
        while True:
            candidates = [own for curve in self._curves if (own := self._next(widths, curve, 1)) is not None]
            fitting = [own for own in candidates if not self.exceeds(own)]
            if not fitting:
                return widths

            def gain(own: dict[str, int]) -> float:
                added = float((self.spent(own) - self.spent(widths)).sum())  # noqa: B023
                return (self.loss(widths) - self.loss(own)) / max(added, _SLACK)  # noqa: B023

            widths = max(fitting, key=gain)

    def _next(self, widths: dict[str, int], curve: Curve, step: int) -> dict[str, int] | None:
        """With one unit's next width."""
        place = curve.widths.index(widths[curve.unit.layer]) + step
        if not 0 <= place < len(curve.widths):
            return None
        return widths | {curve.unit.layer: curve.widths[place]}
