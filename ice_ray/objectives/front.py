"""The non-dominated trials: those that no other beats in time without losing more."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ice_ray.objectives.base import Candidate


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The usable candidates that no other one is at least as good as in both seconds and drop, and better in one.

    Fastest first, so the drop sinks along it; of candidates equal in both figures all are there.

    >>> front = pareto_front([Candidate(0, 10, 1), Candidate(1, 5, 2), Candidate(2, 6, 2)])
    >>> [candidate.index for candidate in front]
    [1, 0]
    """
    front: list[Candidate] = []
    best = math.inf
    for candidate in sorted((c for c in candidates if c.is_usable), key=lambda c: (c.pruning_seconds, c.drop, c.index)):
        equals_last = bool(front) and candidate.pruning_seconds == front[-1].pruning_seconds
        if candidate.drop < best or (equals_last and candidate.drop == best):
            front.append(candidate)
            best = candidate.drop
    return front
