"""How many filters each layer loses."""

from __future__ import annotations

import fnmatch
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from ice_ray.errors import UserError
from ice_ray.models.units import PrunableUnit, PruningStep

RATIO_BOUND = "must be a number inside (0, 1), the share of filters to remove"


@dataclass(frozen=True)
class Allocation:
    """Widths that have been found for a target.

    Attributes:
        widths: (layer, filters kept).
        seconds, flops: what finding them took: a part of PT.
    """

    widths: tuple[tuple[str, int], ...]
    seconds: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class Amounts:
    """The share of filters that goes, layer by layer.

    Attributes:
        ratio: share of each unit's filters to remove, inside (0, 1).
        by_layer: (pattern of module paths, ratio) pairs that override it, the first match first; 0 spares a layer.
        round_to: kept widths are multiples of it (8 or 16: odd widths are slower on real hardware), rounded up, so
            that no layer loses more than its ratio; a layer narrower than it stays whole. [default: 1, unless a target
            asks for more]
        allocation: widths that have been found for a target, which hold in the place of all ratios.
        above: of a ladder's rung, the amounts of the rung before, from whose network it goes on.
    """

    ratio: float
    by_layer: tuple[tuple[str, float], ...] = ()
    round_to: int | None = None
    allocation: Allocation | None = None
    above: Amounts | None = None

    @property
    def _multiple(self) -> int:
        return self.round_to or 1

    def ratio_of(self, layer: str) -> float:
        """The ratio that holds for a layer."""
        own = self.own_ratio(layer)
        return self.ratio if own is None else own

    def own_ratio(self, layer: str) -> float | None:
        """The ratio that a pattern gives a layer, if one does."""
        return next((ratio for pattern, ratio in self.by_layer if fnmatch.fnmatchcase(layer, pattern)), None)

    def removed(self, unit: PrunableUnit) -> int:
        """How many of a unit's filters go from the dense network: ceil(ratio x filters), less where groups, filters
        that must stay or rounding ask for it. Of an attention's heads one stays, and they are not rounded: each is many
        channels wide.
        """
        if self.allocation is not None:
            return unit.filters - dict(self.allocation.widths).get(unit.layer, unit.filters)
        if unit.heads:
            return min(removed_count(self.ratio_of(unit.layer), unit.filters), unit.filters - 1)
        run = unit.filters // unit.groups
        removed = removed_count(self.ratio_of(unit.layer), run)
        return unit.filters - self.rounded(unit, (run - removed) * unit.groups)

    def removed_now(self, unit: PrunableUnit) -> int:
        """How many of a unit's filters go from the network of the rung above; without one, from the dense network."""
        return self.removed(unit) - (0 if self.above is None else self.above.removed(unit))

    def rounded(self, unit: PrunableUnit, kept: int) -> int:
        """A width that keeps all runs equal and all filters that must stay, as a multiple of `round_to` over all runs
        together, rounded up; heads are not rounded.
        """
        if unit.heads:
            return kept
        run, own = unit.filters // unit.groups, -(-kept // unit.groups)
        multiple = self._multiple // math.gcd(self._multiple, unit.groups)
        own = max(own, len(unit.fixed) // unit.groups)
        return min(run, -(-own // multiple) * multiple) * unit.groups

    def losing(self, steps: Sequence[PruningStep]) -> tuple[PruningStep, ...]:
        """The steps with only those units that lose filters now, numbered anew."""
        losing = [tuple(unit for unit in step.units if self.removed_now(unit)) for step in steps]
        return tuple(PruningStep(number, units) for number, units in enumerate(filter(None, losing), start=1))

    def check_patterns(self, steps: Sequence[PruningStep]) -> None:
        """Raises UserError: a pattern matches no layer, or its ratio is no share."""
        layers = [unit.layer for step in steps for unit in step.units]
        for pattern, ratio in self.by_layer:
            if not fnmatch.filter(layers, pattern):
                raise UserError(f"ratios: '{pattern}' matches none of the layers to be pruned")
            if ratio != 0:
                _check_share(ratio, f"ratios: {pattern}: ")

    def check(self, steps: Sequence[PruningStep]) -> None:
        """Raises UserError: a ratio is no share, would empty a layer, names none, or nothing at all would go."""
        _check_share(self.ratio)
        self.check_patterns(steps)
        units = [unit for step in steps for unit in step.units]
        for unit in units:
            if self.allocation is None:
                _check_unit(unit, self.ratio_of(unit.layer))
        if not any(self.removed(unit) for unit in units):
            raise UserError(f"nothing would be removed: no layer has {self._multiple} filters to spare")


def removed_count(ratio: float, filters: int) -> int:
    """ceil(ratio x filters) in exact decimals: a ratio written .55 of 100 filters is 55, where floats say 56."""
    return math.floor((Decimal(repr(float(ratio))) * filters).to_integral_value(ROUND_CEILING))


def parse_ratios(content: object, origin: str) -> tuple[tuple[str, float], ...]:
    """Per-layer ratios from a mapping of patterns to numbers, as a YAML file holds them.

    Raises:
        UserError: it is none.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{origin} must map patterns of layers to ratios")
    for pattern, ratio in content.items():
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
            raise UserError(f"{origin}: {pattern} has {reprlib.repr(ratio)}, not a number")
    return tuple((str(pattern), float(ratio)) for pattern, ratio in content.items())


def is_ratio(value: object) -> bool:
    """Whether it is one: `RATIO_BOUND` says which."""
    return isinstance(value, (int, float)) and 0 < value < 1


def _check_share(ratio: float, where: str = "") -> None:
    if not is_ratio(ratio):
        raise UserError(f"{where}ratio {ratio!r} {RATIO_BOUND}")


def _check_unit(unit: PrunableUnit, ratio: float) -> None:
    run = unit.filters // unit.groups
    if removed_count(ratio, run) >= run and not unit.heads:
        most = math.floor(1000 * (run - 1) / run) / 1000
        each = f"{unit.filters} filters" + (f" in {unit.groups} groups" if unit.groups > 1 else "")
        raise UserError(f"ratio {ratio:g} would empty layer {unit.layer} ({each}); take at most {most:g}")
