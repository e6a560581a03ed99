"""An objective of one's own: a point of accuracy is worth a minute of pruning.

python jobs/ice_prune.py --search.objective examples.objective:choose
"""

from collections.abc import Sequence

from ice_ray.objectives import Candidate, Choice

SECONDS_A_POINT = 60


def choose(candidates: Sequence[Candidate]) -> Choice:
    """The finished trial of the least price in seconds."""

    def price(candidate: Candidate) -> float:
        return candidate.pruning_seconds + SECONDS_A_POINT * candidate.drop

    best = min(candidates, key=price)
    return Choice(best.index, f"least price ({price(best):.1f} s) at {SECONDS_A_POINT} s a point of accuracy")
