"""The box that a space spans: between the least and the greatest value of each hyperparameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters, IceHyperparameters
from ice_ray.randomness import seed_of


@dataclass(frozen=True)
class SearchBounds:
    """Ranges, ends included; rates are measured on a logarithmic scale.

    Attributes:
        name: the space's, for people.
        ranges: least and greatest value per hyperparameter, in their order; equal where it is fixed.
        kind: what they are ranges of.
    """

    name: str
    ranges: dict[str, tuple[float, float]]
    kind: type[Hyperparameters] = IceHyperparameters

    @property
    def is_a_point(self) -> bool:
        """Whether every hyperparameter is fixed."""
        return all(least == greatest for least, greatest in self.ranges.values())

    @property
    def greatest(self) -> Hyperparameters:
        """The corner of all greatest values but for what must be smaller than another: those are at their least."""
        return self._at([0.0 if name in self.kind.logarithmic() else 1 - 1e-9 for name in self.ranges])

    def draw(self, count: int, seed: int) -> tuple[Hyperparameters, ...]:
        """`count` points, uniform in the box; the first ones are the same whatever `count` is."""
        shares = np.random.default_rng(seed_of(seed, "random points")).random((count, len(self.ranges)))
        return tuple(self._at([float(share) for share in row]) for row in shares)

    def check(self, point: Hyperparameters, origin: str) -> None:
        """Refuse a point outside.

        Raises:
            UserError: which of its values is, and where it came from.
        """
        for name, value in point.as_dict().items():
            default = self.kind.defaults().get(name, 0.0)
            least, greatest = self.ranges.get(name, (default, default))
            if not least <= value <= greatest:
                raise UserError(
                    f"{origin}: {name}={value:g} is outside of space '{self.name}' ({least:g} to {greatest:g}); give a "
                    "wider --space"
                )

    def _at(self, shares: list[float]) -> Hyperparameters:
        values = {
            name: _whole(*self.ranges[name], share)
            if name in self.kind.whole()
            else _between(*self.ranges[name], share, name in self.kind.logarithmic())
            for name, share in zip(self.ranges, shares, strict=True)
        }
        return self.kind(**values)


def _whole(least: float, greatest: float, share: float) -> float:
    return least + math.floor(share * (greatest - least + 1))


def _between(least: float, greatest: float, share: float, logarithmic: bool) -> float:
    """At `share`, in [0, 1), of the way; never outside for the sake of rounding."""
    if logarithmic and 0 < least < greatest:  # from 0 on there is no such scale
        value = math.exp(math.log(least) + share * (math.log(greatest) - math.log(least)))
    else:
        value = least + share * (greatest - least)
    return min(max(value, least), greatest)
