"""What a criterion is: a score per filter, the lowest removed first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Batch
from ice_ray.models.units import FilterMap, PrunableUnit, rows_now
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
        rows: of each unit, by its layer: for every layer whose filters go with it, its own first, which of the unit's
            filters each of that layer's goes with, or -1. Units without an entry have their own layer's filters alone.
        columns: likewise, for the readers that read whole filters: (channels,) int64, which of the unit's filters each
            of their input channels reads, or -1.
        freed: likewise, (filters,) float64: multiply-adds of an image that go with each filter; 0 for those that must
            stay.
    """

    model: nn.Module
    units: tuple[PrunableUnit, ...]
    norms: Mapping[str, str | None]
    key: tuple[int | str, ...]
    batches: Callable[[], Iterator[Batch]]
    reduction: Reduction
    dense: Callable[[], nn.Module]
    problems: Mapping[str, Problem] = field(default_factory=dict)
    rows: Mapping[str, tuple[FilterMap, ...]] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    freed: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, context: RepairContext, problems: StepProblems, asked: Collection[str]) -> ScoringContext:
        """Of the network that a repair would be given, with the problems of some of its layers."""
        return cls(
            context.model,
            context.units,
            context.structure.norms,
            context.key,
            context.images.batches,
            context.reduction,
            context.dense,
            problems.of_readers(context, asked),
            {unit.layer: rows_now(unit, context.kept) for unit in context.units},
            {
                unit.layer: {
                    reader: columns
                    for reader in unit.consumers
                    if (columns := context.columns(unit, reader)) is not None
                }
                for unit in context.units
            },
            {unit.layer: context.freed(unit) for unit in context.units},
        )

    def weight(self, unit: PrunableUnit) -> Tensor:
        """(filters, weights of each) float32: a unit's weights, a row per filter. Those of all layers whose filters go
        together stand side by side, zeros where a layer has none that goes with a filter.
        """
        found = {
            layer: (self.model.get_parameter(f"{layer}.weight").detach().float().flatten(1), places)
            for layer, places in self.rows_of(unit)
        }
        if unit.heads:
            return torch.cat([_side_by_side(*each) for each in found.values()], dim=1)
        own, _ = found.pop(unit.layer)
        others = [gathered(len(own), weight, places) for weight, places in found.values()]
        return torch.cat([own, *others], dim=1) if others else own

    def rows_of(self, unit: PrunableUnit) -> tuple[FilterMap, ...]:
        """A unit's `rows`."""
        if unit.layer in self.rows:
            return self.rows[unit.layer]
        own = range(len(self.model.get_parameter(f"{unit.layer}.weight")))
        return ((unit.layer, tuple(own)),)

    def summed(self, of: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
        """By unit (filters,): of each filter's own score and those of the filters of other layers that go with it.

        Args:
            of: by layer, a score for each of its filters; None where it has none.
        """
        found = {}
        for unit in self.units:
            rows = self.rows_of(unit)
            filters = 1 + max(place for _, places in rows for place in places)
            scored = [(layer, places, own) for layer, places in rows if (own := of(layer)) is not None]
            parts = [own if layer == unit.layer else gathered(filters, own, places) for layer, places, own in scored]
            assert parts
            found[unit.layer] = sum(parts[1:], parts[0])
        return found


def gathered(filters: int, values: Tensor, places: Sequence[int]) -> Tensor:
    """(filters, ...) from the values (n, ...) of another layer's filters: the sum of those that go with each.

    Args:
        places: (n,) which filter each goes with, or -1.
    """
    where = torch.tensor(places, device=values.device)
    own = where >= 0
    return values.new_zeros(filters, *values.shape[1:]).index_add_(0, where[own], values[own])


def _side_by_side(weight: Tensor, places: Sequence[int]) -> Tensor:
    """(heads, weights of each) from the (n, inputs) rows of a layer, of which each head has as many.

    Args:
        places: (n,) the head of each row, or -1.
    """
    where = torch.tensor(places, device=weight.device)
    order = where.argsort(stable=True)[int((where < 0).sum()) :]
    return weight[order].view(int(where.max()) + 1, -1)


class Criterion(ABC):
    """Scores the filters of one step's units. A new criterion is a class in a file beside this one and a line in the
    registry.

    Where filters of several layers go together, all of them count: `ScoringContext.weight` has them side by side, and
    `summed` adds up what is known of each layer.
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
