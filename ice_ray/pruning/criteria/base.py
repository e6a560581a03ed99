"""What a criterion is: a score per filter, the lowest removed first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from ice_ray.pruning.units import PrunableUnit

Batch = tuple[Tensor, Tensor]


class Reduction(Protocol):
    """What several processes that score together do with their parts; each has its share of the images."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on every process."""

    def max(self, value: Tensor) -> Tensor:
        """The greatest over processes, element by element, on every process."""


@dataclass(frozen=True)
class ScoringContext:
    """What a criterion may look at.

    Attributes:
        model: the network as it stands, in eval mode; not to be changed.
        units: whose filters to score: those of one step.
        norms: the batch norm that directly follows each layer, where one does.
        key: (seed, step, ...) that names the criterion's random choices, if it makes any.
        batches: this process's share of the calibration images, from the start at every call: normalised images
            (n, C, H, W) and labels (n,), on the model's device.
        reduction: over processes.
    """

    model: nn.Module
    units: tuple[PrunableUnit, ...]
    norms: Mapping[str, str | None]
    key: tuple[int | str, ...]
    batches: Callable[[], Iterator[Batch]]
    reduction: Reduction

    def weight(self, unit: PrunableUnit) -> Tensor:
        """(filters, weights of each) float32: a unit's weights, a row per filter."""
        return self.model.get_parameter(f"{unit.layer}.weight").detach().float().flatten(1)


class Criterion(ABC):
    """Scores the filters of one step's units. A new criterion is a file beside this one and a line in the registry."""

    passes: float = 0.0
    """Forward passes of a calibration image that scoring costs: 0 looks at weights alone, a backward pass counts 2."""

    @abstractmethod
    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        """Per layer (filters,) float scores, the same on every process of a run; the lowest are removed."""

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        """Why this criterion cannot score a unit, whose output that batch norm takes, or None."""
        return None
