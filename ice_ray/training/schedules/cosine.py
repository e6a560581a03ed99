"""From the bound to nothing along half a cosine (Loshchilov and Hutter 2017)."""

from __future__ import annotations

import math


def cosine(progress: float) -> float:
    """(1 + cos(pi x progress)) / 2.

    >>> [round(cosine(progress), 3) for progress in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2
