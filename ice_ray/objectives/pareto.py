"""`pareto`: the knee of the front of (seconds, drop)."""

from __future__ import annotations

from collections.abc import Sequence

from ice_ray.objectives.base import Candidate, Choice, Objective, Values
from ice_ray.objectives.front import pareto_front
from ice_ray.wording import counted


class Pareto(Objective):
    """The front's knee: its point farthest below the line between its ends, both axes scaled to [0, 1] over the front.

    Below is the side of fast and accurate: a point above the line pays more time for accuracy than the ends do, so it
    is no knee. A front of one or two points, or without any point below its line, has none: then its most accurate
    end wins, for a model of about the same accuracy is what pruning is after. Ties go to the smaller drop. Samplers
    minimise seconds and drop, two values.
    """

    dimensions = 2

    def values(self, candidates: Sequence[Candidate]) -> list[Values]:
        return [(c.pruning_seconds, c.drop) for c in candidates]

    def _best(self, usable: Sequence[Candidate]) -> Choice:
        front = pareto_front(usable)
        knee = max(front, key=lambda c: (_depth(c, front), -c.drop, -c.index))
        what = f"the front of {len(front)} of {counted(len(usable), 'finished trial')}"
        if _depth(knee, front) > 0:
            return Choice(knee.index, f"the knee of {what} ({knee.pruning_seconds:.2f} s, drop {knee.drop:.2f})")
        best = min(front, key=lambda c: (c.drop, c.index))
        return Choice(best.index, f"{what} has no knee; so its smallest drop ({best.drop:.2f}) wins")


def _depth(candidate: Candidate, front: Sequence[Candidate]) -> float:
    """How far a point lies below the line between the front's ends, in units of its scaled axes; 0 for the ends."""
    fastest, best = front[0], front[-1]
    seconds, drops = best.pruning_seconds - fastest.pruning_seconds, fastest.drop - best.drop
    if (candidate.pruning_seconds, candidate.drop) in (
        (fastest.pruning_seconds, fastest.drop),
        (best.pruning_seconds, best.drop),
    ):
        return 0.0
    x = (candidate.pruning_seconds - fastest.pruning_seconds) / seconds
    y = (candidate.drop - best.drop) / drops
    return float((1 - x - y) / 2**0.5)
