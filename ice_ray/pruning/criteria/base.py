"""What a criterion is: a score per filter, the lowest removed first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ice_ray.pruning.units import PrunableUnit


@dataclass(frozen=True)
class ScoringContext:
    """What a criterion may look at.

    Attributes:
        model: the network as it stands, in eval mode; not to be changed.
        unit: whose filters to score.
        key: (seed, step, ...) that names the criterion's random choices, if it makes any.
    """

    model: nn.Module
    unit: PrunableUnit
    key: tuple[int | str, ...]

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution that owns the filters."""
        layer = self.model.get_submodule(self.unit.layer)
        assert isinstance(layer, nn.Conv2d)
        return layer


class Criterion(ABC):
    """Scores the filters of one unit. A new criterion is a file beside this one and a line in the registry."""

    @abstractmethod
    def score(self, context: ScoringContext) -> Tensor:
        """(filters,) float scores on the CPU, the same on every process of a run; the lowest are removed."""
