"""What an objective is: a choice among finished trials, and what a sampler minimises to come nearer to it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from ice_ray.errors import RunError, UserError
from ice_ray.objective import normalized_cost
from ice_ray.wording import counted

Values = tuple[float, ...]
_NEARLY_AS_SMALL = 0.05


@dataclass(frozen=True)
class Candidate:
    """A finished trial as an objective sees it.

    Attributes:
        index: the trial's.
        pruning_seconds: PT of eq. 2 on the clock that the search uses.
        drop: eq. 3, in percentage points; negative where pruning helped.
        unpruned_share: of the parameters, at the end; in most pipelines the same for all trials.
    """

    index: int
    pruning_seconds: float
    drop: float
    unpruned_share: float = 0.0

    @property
    def cost(self) -> float:
        """Eq. 2 of this trial."""
        return normalized_cost(self.pruning_seconds, self.drop)

    @property
    def is_usable(self) -> bool:
        """Whether both figures are numbers."""
        return math.isfinite(self.pruning_seconds) and math.isfinite(self.drop)


@dataclass(frozen=True)
class Choice:
    """The winner's index and, in plain words, why it won."""

    index: int
    reason: str


class Objective(ABC):
    """One way to choose a winner. The order of the candidates never matters; ties end at the lowest index."""

    dimensions = 1
    """How many values a sampler minimises."""

    def choose(self, candidates: Sequence[Candidate]) -> Choice:
        """The winner among finished trials, in any order.

        Where a pipeline decides by itself how much it prunes, only those count that have taken nearly as much as the
        one that took most: a trial that removes nothing would be fast and lose nothing.

        Raises:
            RunError: no candidate to choose from.
        """
        usable = sorted((c for c in candidates if c.is_usable and self.accepts(c)), key=lambda c: c.index)
        if not usable:
            raise RunError("no trial finished with a usable result: nothing to choose from")
        least = min(c.unpruned_share for c in usable)
        alike = [c for c in usable if c.unpruned_share <= least + _NEARLY_AS_SMALL]
        choice = self._best(alike)
        if len(alike) == len(usable):
            return choice
        most = f"of the {len(alike)} that took most of {counted(len(usable), 'trial')}"
        return replace(choice, reason=f"{choice.reason}, {most}")

    def accepts(self, candidate: Candidate) -> bool:
        """Whether a finished trial has a value here at all; where not, it counts as failed."""
        return True

    def values(self, candidates: Sequence[Candidate]) -> list[Values]:
        """What `tpe` and `gp` minimise, for each of the acceptable trials that have finished so far: the drop.

        They are asked for all together, anew before every suggestion, so a value may depend on the other trials.
        """
        return [(c.drop,) for c in candidates]

    @abstractmethod
    def _best(self, usable: Sequence[Candidate]) -> Choice:
        """The winner among at least one candidate, sorted by index."""

    @classmethod
    def check_limit(cls, name: str, max_drop: float | None) -> None:
        """Refuse a limit that this objective would ignore, or the want of one.

        Raises:
            UserError: so.
        """
        if max_drop is not None:
            raise UserError(f"search.max_drop {max_drop:g} is for search.objective constrained, not for '{name}'")

    @classmethod
    def with_limit(cls, name: str, max_drop: float | None) -> Self:
        """Built from the options of the command line, which `check_limit` has passed."""
        return cls()
