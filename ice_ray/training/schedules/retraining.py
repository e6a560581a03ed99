"""Schedules that retrain a pruned network by what its dense training did (Renda et al. 2020, Le and Hua 2021, Zimmer et
al. 2022): each from the dense run's greatest rate eta_max to its last, eta_min.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ice_ray.errors import UserError
from ice_ray.training.schedules import Schedule
from ice_ray.training.schedules.linear import linear

Retraining = Literal["ft", "lrw", "slr", "clr", "llr", "allr"]
RETRAININGS: tuple[Retraining, ...] = get_args(Retraining)
WARM_UP = 0.1


@dataclass(frozen=True)
class DenseSchedule:
    """How the dense network was trained: a rate that falls in steps.

    Attributes:
        epochs: of that training.
        milestones: (progress in [0, 1], share of the greatest rate from there on), the first at 0.
    """

    epochs: float
    milestones: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        places = [place for place, _ in self.milestones]
        if not self.epochs > 0:
            raise UserError(f"the dense training's epochs {self.epochs:g} must be above 0")
        if not places or places[0] != 0 or places != sorted(set(places)) or places[-1] >= 1:
            raise UserError(f"the dense schedule's milestones {places} must rise from 0 and stay below 1")
        if not all(0 < share <= 1 for _, share in self.milestones):
            raise UserError("the dense schedule's rates must be shares in (0, 1] of its greatest")

    def share(self, progress: float) -> float:
        """Of the greatest rate, at a progress of the dense training in [0, 1)."""
        return [share for place, share in self.milestones if place <= progress][-1]

    @property
    def last(self) -> float:
        """eta_min / eta_max."""
        return self.milestones[-1][1]


@dataclass(frozen=True)
class Replayed:
    """The dense schedule from a place on, compressed.

    Attributes:
        milestones: as the dense schedule's.
        begin: place it starts from, in [0, 1).
        warm_up: whether a tenth of rising comes first.
    """

    milestones: tuple[tuple[float, float], ...]
    begin: float
    warm_up: bool

    def __call__(self, progress: float) -> float:
        if self.warm_up and progress < WARM_UP:
            return progress / WARM_UP * DenseSchedule(1, self.milestones).share(self.begin)
        own = (progress - WARM_UP) / (1 - WARM_UP) if self.warm_up else progress
        return DenseSchedule(1, self.milestones).share(self.begin + (1 - self.begin) * own)


@dataclass(frozen=True)
class WarmCosine:
    """Up over a tenth, then half a cosine down to the least share of the greatest rate."""

    least: float

    def __call__(self, progress: float) -> float:
        if progress < WARM_UP:
            return progress / WARM_UP
        own = (progress - WARM_UP) / (1 - WARM_UP)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * own)) / 2


@dataclass(frozen=True)
class RetrainingPlan:
    """One phase's retraining.

    Attributes:
        rate: share of eta_max that the schedule scales.
        schedule: by name, or one of the above.
    """

    rate: float
    schedule: Schedule | Replayed | WarmCosine


def retraining_plan(
    name: Retraining, dense: DenseSchedule, epochs: float, lost: float, pruned: float
) -> RetrainingPlan:
    """How a phase of so many epochs retrains.

    | name | rate |
    |---|---|
    | ft | eta_min throughout |
    | lrw | the last epochs of the dense schedule again |
    | slr | the whole dense schedule, compressed, after a tenth of warming up |
    | clr | cosine from eta_max to eta_min, likewise |
    | llr | linear from eta_max to 0, likewise |
    | allr | linear from eta_max x min(1, max(d1, d2)) to 0, likewise |

    with d1 = ||W - W_pruned|| / (||W|| sqrt(s)) and d2 = epochs / dense epochs.

    Args:
        lost: ||W - W_pruned|| / ||W||, what the phase's removal took of the weights' norm.
        pruned: s, the share of the weights that the phase took, in (0, 1].

    >>> steps = DenseSchedule(160, ((0, 1.0), (0.5, 0.1), (0.75, 0.01)))
    >>> retraining_plan("ft", steps, 1, 0.1, 0.5).rate
    0.01
    >>> retraining_plan("allr", steps, 1, 0.1, 0.25).rate
    0.2
    """
    match name:
        case "ft":
            return RetrainingPlan(dense.last, "constant")
        case "lrw":
            return RetrainingPlan(1.0, Replayed(dense.milestones, max(0.0, 1 - epochs / dense.epochs), False))
        case "slr":
            return RetrainingPlan(1.0, Replayed(dense.milestones, 0.0, True))
        case "clr":
            return RetrainingPlan(1.0, WarmCosine(dense.last))
        case "llr":
            return RetrainingPlan(1.0, "linear")
        case "allr":
            nearest = max(lost / math.sqrt(pruned), min(epochs / dense.epochs, 1.0))
            return RetrainingPlan(min(1.0, nearest), "linear")


def parse_milestones(text: str) -> tuple[tuple[float, float], ...]:
    """From `0:1,0.5:0.1,0.75:0.01`.

    Raises:
        UserError: it is none.
    """
    try:
        pairs = [part.split(":") for part in text.split(",")]
        found = tuple((float(place), float(share)) for place, share in pairs)
    except ValueError as error:
        raise UserError(f"dense schedule '{text}' must be PLACE:SHARE pairs, like 0:1,0.5:0.1,0.75:0.01") from error
    DenseSchedule(1, found)
    return found


def same_retraining(first: RetrainingPlan, second: RetrainingPlan) -> bool:
    """Whether two come to the same rates: with a dense schedule that ends constant, lrw and ft do for short phases.

    >>> steps = DenseSchedule(160, ((0, 1.0), (0.5, 0.1)))
    >>> same_retraining(*(retraining_plan(name, steps, 2, 0.1, 0.5) for name in ("ft", "lrw")))
    True
    """
    places = [number / 1000 for number in range(1000)]
    return all(math.isclose(rate_at(first, place), rate_at(second, place), abs_tol=1e-12) for place in places)


def rate_at(plan: RetrainingPlan, progress: float) -> float:
    """Share of eta_max at a progress of the retraining, in [0, 1)."""
    if not isinstance(plan.schedule, str):
        return plan.rate * plan.schedule(progress)
    return plan.rate * (linear(progress) if plan.schedule == "linear" else 1.0)
