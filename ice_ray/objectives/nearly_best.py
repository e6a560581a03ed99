"""`nearly-best`: the fastest of the trials that lose hardly more than the best."""

from __future__ import annotations

from collections.abc import Sequence

from ice_ray.objectives.base import Candidate, Choice, Objective

TOLERANCE_POINTS = 0.5


def fastest_nearly_best(usable: Sequence[Candidate]) -> Choice:
    """The least pruning time among the candidates whose drop is within 0.5 points of the smallest."""
    smallest = min(c.drop for c in usable)
    near = [c for c in usable if c.drop <= smallest + TOLERANCE_POINTS]
    best = min(near, key=lambda c: (c.pruning_seconds, c.drop, c.index))
    reason = (
        f"the fastest ({best.pruning_seconds:.2f} s) of the {len(near)} whose drop is within {TOLERANCE_POINTS} points"
        f" of the smallest ({smallest:.2f})"
    )
    return Choice(best.index, reason)


class NearlyBest(Objective):
    """The least pruning time among the trials whose drop is within 0.5 points of the smallest: a trial that took longer
    must have gained by it, which eq. 2 does not ask. Samplers minimise the drop.
    """

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        return fastest_nearly_best(usable)
