"""What a criterion is: a score per filter, the lowest removed first."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ice_ray.pruning.calibration import Batch, Reduction, ScoringContext
from ice_ray.pruning.units import PrunableUnit

__all__ = ["Batch", "Criterion", "Reduction", "ScoringContext"]


class Criterion(ABC):
    """Scores the filters of one step's units. A new criterion is a file beside this one and a line in the registry."""

    passes: float = 0.0
    """Forward passes of a calibration image that scoring costs: 0 looks at weights alone, a backward pass counts 2."""
    sets_up_refits: bool = False
    """Whether these are passes for every layer that reads what is scored, of which each sets up a refit of it."""

    @abstractmethod
    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        """Per layer (filters,) float scores, the same on every process of a run; the lowest are removed."""

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        """Why this criterion cannot score a unit, whose output that batch norm takes, or None."""
        return None
