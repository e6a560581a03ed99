"""`auto`: eq. 2 where it means what the paper says, else the fastest of the nearly best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ice_ray.objectives.base import Candidate, Choice, Objective
from ice_ray.objectives.eq2 import least_cost
from ice_ray.objectives.nearly_best import fastest_nearly_best


class Auto(Objective):
    """The least eq. 2 cost while every trial is on the side of eq. 2 that the paper assumes (PT > dA > 0).

    Otherwise as `nearly-best`, because there eq. 2 rewards being slower, or worse. Samplers minimise the drop.
    """

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        outside = [c for c in usable if not c.pruning_seconds > c.drop > 0]
        if not outside:
            return least_cost(usable)
        choice = fastest_nearly_best(usable)
        reason = (
            f"{len(outside)} of {len(usable)} trials are not where eq. 2 assumes them (pruning seconds > drop in"
            f" points > 0), where it would reward a trial for being slow or for being worse; so {choice.reason} wins"
        )
        return replace(choice, reason=reason)
