"""What a criterion is: a score per filter, the lowest removed first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ice_ray.data.batches import Batch
from ice_ray.models.units import PrunableUnit
from ice_ray.repair.context import Reduction, RepairContext
from ice_ray.repair.least_squares import Problem
from ice_ray.repair.step_problems import StepProblems

__all__ = ["Batch", "Criterion", "Reduction", "ScoringContext"]


@dataclass(frozen=True)
class ScoringContext:
    """What criteria may look at.

    Attributes:
        model: the network as it stands, in eval mode; criteria do not change it.
        units: whose filters to score: those of one step.
        norms: the batch norm that directly follows each layer, where one does.
        key: (seed, step, ...) that names the criterion's random choices, if it makes any.
        batches: this process's share of the calibration images, from the start at every call: normalised images
            (n, C, H, W) and labels (n,), on the model's device.
        reduction: over processes.
        dense: the network as it was before anything was pruned, in eval mode; not to be changed.
        problems: of each layer that the criterion has asked for (`Criterion.problems`), the least-squares problem of
            giving what it gave in the dense network; of those that can be refitted.
    """

    model: nn.Module
    units: tuple[PrunableUnit, ...]
    norms: Mapping[str, str | None]
    key: tuple[int | str, ...]
    batches: Callable[[], Iterator[Batch]]
    reduction: Reduction
    dense: Callable[[], nn.Module]
    problems: Mapping[str, Problem] = field(default_factory=dict)

    @classmethod
    def of(cls, context: RepairContext, problems: StepProblems, asked: Iterable[str]) -> ScoringContext:
        """Of the network that a repair would be given, with the problems of some of its layers."""
        found = {layer: problem for layer in asked if (problem := problems.of_reader(context, layer)) is not None}
        norms, batches = context.structure.norms, context.images.batches
        return cls(context.model, context.units, norms, context.key, batches, context.reduction, context.dense, found)

    def weight(self, unit: PrunableUnit) -> Tensor:
        """(filters, weights of each) float32: a unit's weights, a row per filter."""
        return self.model.get_parameter(f"{unit.layer}.weight").detach().float().flatten(1)


class Criterion(ABC):
    """Scores the filters of one step's units. A new criterion is a class in a file beside this one and a line in the
    registry.
    """

    passes: float = 0.0
    """Forward passes of a calibration image that scoring costs: 0 looks at weights alone, a backward pass counts 2.
    Those that set up problems are counted by themselves."""

    @abstractmethod
    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        """Per layer (filters,) float scores, the same on every process of a run; the lowest are removed."""

    def problems(self, units: Iterable[PrunableUnit]) -> Collection[str]:
        """Of the layers that read these units' filters, those whose least-squares problems it looks at: one that looks
        at any pays for all that are set up before the removal, and the repair behind it does not.
        """
        return ()

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        """Why this criterion cannot score a unit, whose output that batch norm takes, or None."""
        return None
