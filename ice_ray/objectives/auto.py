"""`auto`: eq. 2 where it means what the paper says, else the fastest of the nearly best."""

from __future__ import annotations

from collections.abc import Sequence

from ice_ray.objectives.base import Candidate, Choice, Objective
from ice_ray.objectives.eq2 import least_cost

AUTO_TOLERANCE_POINTS = 0.5


class Auto(Objective):
    """The least eq. 2 cost while every trial is on the side of eq. 2 that the paper assumes (PT > dA > 0).

    Otherwise the least pruning time among the trials whose drop is within 0.5 points of the smallest, because there
    eq. 2 rewards being slower, or worse. Samplers minimise the drop.
    """

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        outside = [c for c in usable if not c.pruning_seconds > c.drop > 0]
        if not outside:
            return least_cost(usable)
        smallest = min(c.drop for c in usable)
        near = [c for c in usable if c.drop <= smallest + AUTO_TOLERANCE_POINTS]
        best = min(near, key=lambda c: (c.pruning_seconds, c.drop, c.index))
        reason = (
            f"{len(outside)} of {len(usable)} trials are not where eq. 2 assumes them (pruning seconds > drop in"
            f" points > 0), where it would reward a trial for being slow or for being worse; so the fastest"
            f" ({best.pruning_seconds:.2f} s) of the {len(near)} whose drop is within {AUTO_TOLERANCE_POINTS} points"
            f" of the smallest ({smallest:.2f}) wins"
        )
        return Choice(best.index, reason)
