"""Equations 2 and 3 of the paper."""

from __future__ import annotations

import math


def accuracy_drop(original: float, final: float) -> float:
    """Eq. 3: original minus final accuracy, in percentage points. Negative where pruning helped."""
    return original - final


def normalized_cost(pruning_seconds: float, drop: float) -> float:
    """Eq. 2: (PT + dA) / max(PT, dA); smaller is better.

    Args:
        pruning_seconds: PT, the seconds of scoring, removal, decision measurements and fine-tuning. At least 0.
        drop: dA, eq. 3, in percentage points.

    What it does: with PT > dA > 0 it is 1 + dA/PT, so at equal drop the slower run scores better; with PT < dA
    it is 1 + PT/dA and the order folds over; its maximum 2 sits at PT = dA. With dA < 0 it is below 1 (and
    negative where PT < |dA|); dA = 0 gives 1. It has no value where PT = 0 and dA <= 0: then it is infinite,
    and a trial with it counts as failed, as does one with a negative value.
    """
    larger = max(pruning_seconds, drop)
    if larger <= 0 or not math.isfinite(larger):
        return math.inf
    return (pruning_seconds + drop) / larger
