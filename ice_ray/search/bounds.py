"""The box that a space spans: between the least and the greatest value of each hyperparameter."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ice_ray.errors import UserError
from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters, spelled
from ice_ray.randomness import seed_of


@dataclass(frozen=True)
class SearchBounds:
    """Ranges, ends included; rates are measured on a logarithmic scale. A hyperparameter may also be never.

    Attributes:
        name: the space's, for people.
        ranges: least and greatest finite value per hyperparameter, in their order; equal where it is fixed.
        kind: what they are ranges of.
        nevers: hyperparameters that may be never: always so where they have no range, else as often as not.
    """

    name: str
    ranges: dict[str, tuple[float, float]]
    kind: type[Hyperparameters] = IceHyperparameters
    nevers: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """Hyperparameters that are either never or in their range."""
        return tuple(name for name in self.nevers if name in self.ranges)

    @property
    def is_a_point(self) -> bool:
        """Whether every hyperparameter is fixed."""
        return not self.choices and all(least == greatest for least, greatest in self.ranges.values())

    @property
    def greatest(self) -> Hyperparameters:
        """The corner of all greatest values but for what must be smaller than another: those are at their least."""
        return self._at([0.0 if name in self.kind.logarithmic() else 1 - 1e-9 for name in self.ranges], ())

    @property
    def middle(self) -> Hyperparameters:
        """Half way between the least and the greatest of each, on its scale."""
        return self._at([0.5] * len(self.ranges), ())

    def draw(self, count: int, seed: int) -> tuple[Hyperparameters, ...]:
        """`count` points, uniform in the box; the first ones are the same whatever `count` is."""
        choices = self.choices
        shares = np.random.default_rng(seed_of(seed, "random points")).random((count, len(choices) + len(self.ranges)))
        return tuple(
            self._at(
                [float(share) for share in row[len(choices) :]],
                [name for name, share in zip(choices, row, strict=False) if share < 0.5],
            )
            for row in shares
        )

    def point(self, values: Mapping[str, float], never: Collection[str]) -> Hyperparameters:
        """Of values within the ranges, and some of `choices` that are never instead: without what is idle then."""
        never = {*never, *(name for name in self.nevers if name not in self.ranges)}
        idle = frozenset[str]().union(*map(self.kind.decided_by, never))
        own = {name: value for name, value in values.items() if name not in idle}
        return self.kind(**own | dict.fromkeys(never, NEVER))

    def idle_in(self, point: Hyperparameters) -> frozenset[str]:
        """What decides nothing in a point of which something is never."""
        return frozenset[str]().union(
            *(self.kind.decided_by(name) for name in self.nevers if getattr(point, name) == NEVER)
        )

    def check(self, point: Hyperparameters, origin: str) -> None:
        """Refuse a point outside.

        Raises:
            UserError: which of its values is, and where it came from.
        """
        idle = point.idle
        for name, value in point.as_dict().items():
            default = self.kind.defaults().get(name, 0.0)
            least, greatest = self.ranges.get(name, (default, default))
            if name in idle or (value == NEVER and name in self.nevers) or least <= value <= greatest:
                continue
            within = "never" if least == NEVER else f"{least:g} to {greatest:g}{' or never' * (name in self.choices)}"
            raise UserError(
                f"{origin}: {name}={spelled(value)} is outside of space '{self.name}' ({within}); give a wider space"
            )

    def _at(self, shares: list[float], never: Collection[str]) -> Hyperparameters:
        values = {
            name: _whole(*self.ranges[name], share)
            if name in self.kind.whole()
            else _between(*self.ranges[name], share, name in self.kind.logarithmic())
            for name, share in zip(self.ranges, shares, strict=True)
        }
        return self.point(values, never)


def _whole(least: float, greatest: float, share: float) -> float:
    return least + math.floor(share * (greatest - least + 1))


def _between(least: float, greatest: float, share: float, logarithmic: bool) -> float:
    """At `share`, in [0, 1), of the way; never outside for the sake of rounding."""
    if logarithmic and 0 < least < greatest:  # from 0 on there is no such scale
        value = math.exp(math.log(least) + share * (math.log(greatest) - math.log(least)))
    else:
        value = least + share * (greatest - least)
    return min(max(value, least), greatest)
