"""What a repair is given: a step's network, the dense one, and the calibration images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ice_ray.models.units import Kept, PrunableUnit, columns_now, kept_without, lanes_left, rows_now
from ice_ray.repair.calibration_images import CalibrationImages


class Reduction(Protocol):
    """What several processes that work together do with their parts; each has its share of the images."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on every process."""

    def max(self, value: Tensor) -> Tensor:
        """The greatest over processes, element by element, on every process."""


@dataclass(frozen=True)
class Structure:
    """How a network's layers hang together.

    Attributes:
        order: convolutions and linear layers in the order in which they run.
        norms: the batch norm that directly follows each layer, where one does.
        residual_branches: layers whose output, behind the norm, is but a term of a sum.
        activations: by layer, the function that alone reads its output behind the norm, or that sum.
        answers: after the last step, the layer whose outputs are the network's, where one can be refitted.
        step_ends: after the last step, the layers that the steps lead to.
        fixed: layers whose weights no repair may change.
        units: all that may lose filters, of every step.
        positions: of each layer's output, in an image.
    """

    order: Sequence[str]
    norms: Mapping[str, str | None]
    residual_branches: Collection[str] = ()
    activations: Mapping[str, str] = field(default_factory=dict)
    answers: str | None = None
    step_ends: Sequence[str] = ()
    fixed: Collection[str] = ()
    units: Sequence[PrunableUnit] = ()
    positions: Mapping[str, int] = field(default_factory=dict)

    def own_norm(self, layer: str) -> str | None:
        """The norm behind a layer, if it is behind no other: its statistics can then go with the layer's weights."""
        norm = self.norms.get(layer)
        return norm if list(self.norms.values()).count(norm) == 1 else None


@dataclass(frozen=True)
class RepairContext:
    """What repairs look at, and change.

    Attributes:
        model: the network as it stands, in eval mode.
        dense: the network as it was before anything was pruned, in eval mode; not to be changed.
        units: those of one step.
        structure: of both networks.
        images: that are looked at.
        reduction: over processes.
        key: (seed, step, ...) that names random choices.
        kept: by layer that owns filters, which of the dense network's the network has. Of other layers it has all.
    """

    model: nn.Module
    dense: Callable[[], nn.Module]
    units: tuple[PrunableUnit, ...]
    structure: Structure
    images: CalibrationImages
    reduction: Reduction
    key: tuple[int | str, ...]
    kept: Kept

    def filters(self, layer: str, of_dense: bool = False) -> int:
        """How many a layer has now, or had in the dense network."""
        return len((self.dense() if of_dense else self.model).get_parameter(f"{layer}.weight"))

    def without(self, removed: Kept) -> RepairContext:
        """After a removal.

        Args:
            removed: by a unit's layer, indices of filters as the layer was.
        """
        return replace(self, kept=kept_without(self.structure.units, self.kept, removed))

    def outputs(self, layer: str) -> Tensor:
        """(filters,) int64, on the network's device: which of the dense network's filters a layer has."""
        weight = self.model.get_parameter(f"{layer}.weight")
        kept = self.kept[layer] if layer in self.kept else range(len(weight))
        return torch.tensor(kept, dtype=torch.int64, device=weight.device)

    @property
    def is_spread(self) -> bool:
        """Whether the step reaches beyond a block: filters of several layers go together, or are read as a part of
        something.
        """
        return any(unit.is_spread for unit in self.units)

    def columns(self, unit: PrunableUnit, reader: str) -> Tensor | None:
        """(input channels or features,) int64 of a reader: which of a unit's filters each of them reads, counted as
        they are now, or -1. None where that is not known.
        """
        layer = self.model.get_submodule(reader)
        weight = layer.get_parameter("weight")
        inputs = weight.shape[1] * int(getattr(layer, "groups", 1))
        found = columns_now(self.structure.units, unit, reader, self.kept, inputs)
        return None if found is None else torch.tensor(found, dtype=torch.int64, device=weight.device)

    def lanes(self, layer: str) -> Tensor | None:
        """(positions,) int64, on the network's device: which of the dense network's positions a layer still has that
        runs along filters; None where it has all.
        """
        left = lanes_left(self.structure.units, layer, self.kept)
        if left is None:
            return None
        return torch.tensor(left, dtype=torch.int64, device=self.model.get_parameter(f"{layer}.weight").device)

    def freed(self, unit: PrunableUnit) -> Tensor:
        """(filters,) float64: multiply-adds of an image that go with each of a unit's filters as it is now; 0 for those
        that must stay.
        """
        model, positions = self.model, self.structure.positions
        freed = torch.zeros(len(self.kept[unit.layer]), dtype=torch.float64)
        for layer, places in rows_now(unit, self.kept):
            weights = model.get_parameter(f"{layer}.weight")[0].numel()
            own = torch.tensor(places)
            freed += torch.bincount(own[own >= 0], minlength=len(freed)) * weights * positions.get(layer, 1)
        for reader in unit.consumers:
            columns = self.columns(unit, reader)
            if columns is not None:
                weights = model.get_parameter(f"{reader}.weight").numel() // len(columns)
                own = columns[columns >= 0].cpu()
                freed += torch.bincount(own, minlength=len(freed)) * weights * positions.get(reader, 1)
        for layer, roots in unit.lanes:
            weights = model.get_parameter(f"{layer}.weight").numel()
            freed += weights * sum(root >= 0 for root in roots) / unit.filters
        stays = torch.tensor([index in unit.fixed for index in self.kept[unit.layer]])
        return freed.masked_fill(stays, 0.0)
