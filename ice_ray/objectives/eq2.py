"""`eq2`: the paper's choice, come what may."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ice_ray.objectives.base import Candidate, Choice, Objective, Values
from ice_ray.wording import counted


def least_cost(usable: Sequence[Candidate]) -> Choice:
    """The candidate of the least eq. 2 cost."""
    best = min(usable, key=lambda c: (c.cost, c.index))
    return Choice(best.index, f"least eq. 2 cost ({best.cost:.4f}) of {counted(len(usable), 'finished trial')}")


class Eq2(Objective):
    """The least eq. 2 cost; a trial whose cost is infinite or negative counts as failed. Samplers minimise the cost."""

    def accepts(self, candidate: Candidate) -> bool:
        return math.isfinite(candidate.cost) and candidate.cost >= 0

    def values(self, candidates: Sequence[Candidate]) -> list[Values]:
        return [(c.cost,) for c in candidates]

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        return least_cost(usable)
