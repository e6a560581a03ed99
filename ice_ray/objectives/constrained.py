"""`constrained`: the fastest trial that loses no more than it may."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from ice_ray.errors import UserError
from ice_ray.objectives.base import Candidate, Choice, Objective, Values
from ice_ray.wording import counted


class Constrained(Objective):
    """The least pruning time among the trials whose drop is at most `max_drop` points.

    Where no trial keeps to that, the smallest drop wins, and the reason says so. Samplers minimise the seconds, and
    for a trial above the limit more than the seconds of the slowest trial: those times 1 + its share of the largest
    excess. So every trial above the limit is worse than every one within it, and the nearer ones are better.
    """

    def __init__(self, max_drop: float) -> None:
        self._max_drop = max_drop

    def values(self, candidates: Sequence[Candidate]) -> list[Values]:
        slowest = max((c.pruning_seconds for c in candidates), default=0.0) or 1.0
        largest = max((self._excess(c) for c in candidates), default=0.0)
        return [
            (slowest * (1 + self._excess(c) / largest) if self._excess(c) > 0 else c.pruning_seconds,)
            for c in candidates
        ]

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        within = [c for c in usable if c.drop <= self._max_drop]
        limit = f"search.max_drop {counted(self._max_drop, 'point')}"
        if not within:
            best = min(usable, key=lambda c: (c.drop, c.pruning_seconds, c.index))
            reason = (
                f"none of {counted(len(usable), 'finished trial')} keeps within {limit}; so the smallest drop"
                f" ({best.drop:.2f}) wins"
            )
            return Choice(best.index, reason)
        best = min(within, key=lambda c: (c.pruning_seconds, c.drop, c.index))
        reason = (
            f"the fastest ({best.pruning_seconds:.2f} s) of the {len(within)} of "
            f"{counted(len(usable), 'finished trial')} within {limit}"
        )
        return Choice(best.index, reason)

    def _excess(self, candidate: Candidate) -> float:
        return candidate.drop - self._max_drop

    @classmethod
    def check_limit(cls, name: str, max_drop: float | None) -> None:
        if max_drop is None:
            raise UserError("search.objective constrained needs search.max_drop, the points a trial may lose")
        if not math.isfinite(max_drop):
            raise UserError(f"search.max_drop {max_drop} must be a number of percentage points")

    @classmethod
    def with_limit(cls, name: str, max_drop: float | None) -> Self:
        cls.check_limit(name, max_drop)
        return cls(max_drop if max_drop is not None else math.inf)
