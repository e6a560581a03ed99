"""Equations 2 and 3, and the choice of a winner among finished trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ice_ray.errors import RunError

Objective = Literal["auto", "eq2"]
AUTO_TOLERANCE_POINTS = 0.5


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


@dataclass(frozen=True)
class Candidate:
    """A finished trial as the objective sees it: seconds on the clock the search uses, points, eq. 2."""

    index: int
    pruning_seconds: float
    drop: float

    @property
    def cost(self) -> float:
        """Eq. 2 of this trial."""
        return normalized_cost(self.pruning_seconds, self.drop)

    @property
    def as_the_paper_assumes(self) -> bool:
        """Whether PT > dA > 0, the side of eq. 2 on which it weighs drop against time."""
        return self.pruning_seconds > self.drop > 0


@dataclass(frozen=True)
class Choice:
    """The winner's index and, in plain words, why it won."""

    index: int
    reason: str


def choose(candidates: Sequence[Candidate], objective: Objective) -> Choice:
    """The winner among finished trials; ties go to the lower index.

    `eq2` takes the least eq. 2 cost. `auto` does too while every trial is on the side of eq. 2 that the paper
    assumes (PT > dA > 0); otherwise it takes the least pruning time among the trials whose drop is within 0.5
    points of the smallest, because there eq. 2 rewards being slower, or worse.

    Raises:
        RunError: no candidate to choose from.
    """
    usable = [c for c in candidates if math.isfinite(c.pruning_seconds) and math.isfinite(c.drop)]
    if objective == "eq2":
        usable = [c for c in usable if math.isfinite(c.cost) and c.cost >= 0]
    if not usable:
        raise RunError("no trial finished with a usable result: nothing to choose from")
    outside = [c for c in usable if not c.as_the_paper_assumes]
    if objective == "eq2" or not outside:
        best = min(usable, key=lambda c: (c.cost, c.index))
        return Choice(best.index, f"least eq. 2 cost ({best.cost:.4f}) of {len(usable)} finished trials")
    smallest = min(c.drop for c in usable)
    near = [c for c in usable if c.drop <= smallest + AUTO_TOLERANCE_POINTS]
    best = min(near, key=lambda c: (c.pruning_seconds, c.drop, c.index))
    reason = (
        f"{len(outside)} of {len(usable)} trials are not where eq. 2 assumes them (pruning seconds > drop in points"
        f" > 0), where it would reward a trial for being slow or for being worse; so the fastest"
        f" ({best.pruning_seconds:.2f} s) of the {len(near)} whose drop is within {AUTO_TOLERANCE_POINTS} points of"
        f" the smallest ({smallest:.2f}) wins"
    )
    return Choice(best.index, reason)
