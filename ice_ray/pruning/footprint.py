"""What a network's layers come to, in multiply-adds and parameters, as its units lose filters: counted, not built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from ice_ray.models.copies import copied
from ice_ray.models.trace import LayerTrace
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.coupling import removal_group
from ice_ray.pruning.removal import parted, remove_filters, surgery

Array = npt.NDArray[np.float64]


class Footprint:
    """Multiply-adds and parameters of every pruned form of a network, from one graph of it.

    A layer's count is the product of what is left of its outputs and of its inputs, so two neighbours that both lose
    filters save more than the sum of what each saves.

    Args:
        module: the dense network, in eval mode; it is left as it is.
        image_shape: (C, H, W).
        traces: of its layers.
        units: whose filters may go.
    """

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, int, int],
        traces: Sequence[LayerTrace],
        units: Sequence[PrunableUnit],
    ) -> None:
        self._units = {unit.layer: (number, unit.filters) for number, unit in enumerate(units)}
        taken = _taken(copied(module), image_shape, units)
        macs, params = list[_Tensor](), list[_Tensor]()
        self._weights: dict[str, _Tensor] = {}
        for name, own in module.named_modules():
            tensors = {
                key: _Tensor(each.numel(), each.shape, taken.get((name, key), {}))
                for key, each in own._parameters.items()
                if each is not None
            }
            params += tensors.values()
            if runs := [trace for trace in traces if trace.name == name]:
                weight, positions = tensors["weight"], sum(trace.positions for trace in runs)
                self._weights[name] = weight
                lanes = Counter[str]()
                for trace in runs:
                    lanes.update({layer: each for layer, _, each in trace.lanes})
                shape, lost = (*weight.shape, positions), {**weight.taken, len(weight.shape): lanes}
                macs.append(_Tensor(weight.size * positions, shape, lost))
        self._counts = {"macs": _Count(macs, list(self._units)), "params": _Count(params, list(self._units))}

    def share(self, quantity: str, widths: Mapping[str, int]) -> float:
        """What is left of the dense network's `macs` or `params` with these widths; units not named are whole."""
        return float(self._counts[quantity].shares(self._gone(widths)[:, None])[0])

    def along(self, quantity: str, widths: Mapping[str, int], unit: PrunableUnit) -> Array:
        """(filters + 1,) the same with this unit's filters from none to all kept, the others' as given."""
        number, filters = self._units[unit.layer]
        gone = np.repeat(self._gone(widths)[:, None], filters + 1, axis=1)
        gone[number] = filters - np.arange(filters + 1)
        return self._counts[quantity].shares(gone)

    def channels(self, layer: str, widths: Mapping[str, int]) -> tuple[int, int]:
        """Outputs, and inputs of each group, that a convolution or linear layer has left with these widths."""
        weight, left = self._weights[layer], list[int]()
        for dim, size in enumerate(weight.shape[:2]):
            taken = weight.taken.get(dim, {})
            whole = {unit: self._units[unit][1] for unit in taken}
            gone = sum(own * (whole[unit] - widths.get(unit, whole[unit])) for unit, own in taken.items())
            left.append(round(size - gone))
        return left[0], left[1]

    def _gone(self, widths: Mapping[str, int]) -> Array:
        return np.array([filters - widths.get(layer, filters) for layer, (_, filters) in self._units.items()], float)


@dataclass(frozen=True)
class _Tensor:
    """Elements, shape, and by dimension how many of its places go with a filter of each unit; of multiply-adds output
    positions are the last dimension.
    """

    size: int
    shape: Sequence[int]
    taken: Mapping[int, Mapping[str, float]]


class _Count:
    """What is left of tensors, each by the shares of its dimensions that are left."""

    def __init__(self, tensors: Sequence[_Tensor], units: Sequence[str]) -> None:
        self._sizes = np.array([each.size for each in tensors], float)
        dims = 1 + max((dim for each in tensors for dim in each.taken), default=0)
        self._cuts = np.zeros((dims, len(tensors), len(units)))
        for row, each in enumerate(tensors):
            for dim, own in each.taken.items():
                for layer, taken in own.items():
                    self._cuts[dim, row, units.index(layer)] = taken / each.shape[dim]

    def shares(self, gone: Array) -> Array:
        """(n,) of (units, n) filters gone."""
        left: Array = self._sizes @ np.prod(1 - self._cuts @ gone, axis=0) / self._sizes.sum()
        return left


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


_Taken = dict[int, dict[str, float]]
"""By dimension of a tensor and unit, how many of its places go with a filter of the unit, on the average."""


def _taken(
    model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]
) -> dict[tuple[str, str], _Taken]:
    """By module and parameter of its own."""
    found: dict[tuple[str, str], _Taken] = {}

    def note(module: str, key: str, dim: int, unit: PrunableUnit, taken: float) -> None:
        own = found.setdefault((module, key), {}).setdefault(dim, {})
        own[unit.layer] = max(own.get(unit.layer, 0.0), taken)

    with surgery(model, image_shape) as graph:
        modules = dict(model.named_modules())
        names = {id(module): name for name, module in modules.items()}
        everything = {unit.layer: list(range(unit.filters)) for unit in units}
        alone, _ = parted(graph, modules, everything)
        for unit in units:
            if unit.layer not in alone:
                continue
            for item in removal_group(graph, modules[unit.layer], everything[unit.layer]):
                target = item.dep.target.module
                if id(target) not in names:
                    continue
                reads = item.dep.handler.__name__ == "prune_in_channels" and isinstance(target, (nn.Conv2d, nn.Linear))
                # A filter of a grouped reader sees one group's inputs alone.
                groups = target.groups if reads and isinstance(target, nn.Conv2d) else 1
                taken = len(item.idxs) / groups / unit.filters
                inputs = reads and not _is_depthwise(target)
                for key, tensor in target._parameters.items():
                    if tensor is not None and tensor.ndim > inputs:
                        note(names[id(target)], key, int(inputs), unit, taken)
    for unit in units:
        if unit.layer not in alone:
            for (module, key), dims in _missing(model, image_shape, unit).items():
                for dim, taken in dims.items():
                    note(module, key, dim, unit, taken)
    return found


def _missing(
    model: nn.Module, image_shape: tuple[int, int, int], unit: PrunableUnit
) -> dict[tuple[str, str], dict[int, float]]:
    """By module, parameter and dimension, the places that go with a filter of a coupled set, seen by taking some. Where
    not all take along as much (zero padding), of those that take the least: what is left is never more than it is said
    to be.
    """
    free = [index for index in range(unit.filters // unit.groups) if index not in unit.fixed]
    touched = Counter(place for _, places in (*unit.coupled, *unit.columns) for place in places)
    least = min(touched[index] for index in free)
    alike = [index for index in free if touched[index] == least]
    some = alike[: (len(alike) + 1) // 2]
    gone = [start + each for start in range(0, unit.filters, unit.filters // unit.groups) for each in some]
    own = copied(model)
    remove_filters(own, image_shape, {unit.layer: gone})
    found: dict[tuple[str, str], dict[int, float]] = {}
    for name, module in model.named_modules():
        for key, tensor in module._parameters.items():
            left = own.get_submodule(name)._parameters.get(key)
            if tensor is not None and left is not None and tensor.shape != left.shape:
                lost = [was - now for was, now in zip(tensor.shape, left.shape, strict=True)]
                found[name, key] = {dim: each / len(gone) for dim, each in enumerate(lost) if each}
    return found
