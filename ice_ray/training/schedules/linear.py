"""Up to the bound over the first tenth, then down to nothing in a straight line (LLR: Zimmer et al. 2022)."""

from __future__ import annotations

_WARM_UP = 0.1


def linear(progress: float) -> float:
    """progress / 0.1 while warming up, then (1 - progress) / 0.9.

    >>> [round(linear(progress), 3) for progress in (0, 0.05, 0.1, 0.55, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return min(progress / _WARM_UP, (1 - progress) / (1 - _WARM_UP))
