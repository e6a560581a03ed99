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
        for name, own in module.named_modules():
            sides = _Sides(taken.get((name, "out"), {}), taken.get((name, "in"), {}), _is_depthwise(own))
            params += [
                _Tensor(each.numel(), each.shape, sides) for each in own._parameters.values() if each is not None
            ]
            if positions := sum(trace.positions for trace in traces if trace.name == name):
                weight = own.get_parameter("weight")
                macs.append(_Tensor(weight.numel() * positions, weight.shape, sides))
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

    def _gone(self, widths: Mapping[str, int]) -> Array:
        return np.array([filters - widths.get(layer, filters) for layer, (_, filters) in self._units.items()], float)


@dataclass(frozen=True)
class _Sides:
    """Of a module: how many of its outputs and inputs go with a filter of each unit; inputs of a depthwise layer are
    its outputs.
    """

    outputs: Mapping[str, float]
    inputs: Mapping[str, float]
    depthwise: bool


@dataclass(frozen=True)
class _Tensor:
    """Elements (times output positions, for multiply-adds), shape, and what cuts it."""

    size: int
    shape: Sequence[int]
    sides: _Sides


class _Count:
    """What is left of tensors, each by the share of its outputs and of its inputs that is left."""

    def __init__(self, tensors: Sequence[_Tensor], units: Sequence[str]) -> None:
        self._sizes = np.array([each.size for each in tensors], float)
        self._cuts = np.zeros((2, len(tensors), len(units)))
        for row, each in enumerate(tensors):
            depthwise = each.sides.depthwise
            sides = [each.sides.outputs or (each.sides.inputs if depthwise else {})]
            sides += [] if depthwise else [each.sides.inputs]
            for side, (channels, own) in enumerate(zip(each.shape, sides, strict=False)):
                for layer, taken in own.items():
                    self._cuts[side, row, units.index(layer)] = taken / channels

    def shares(self, gone: Array) -> Array:
        """(n,) of (units, n) filters gone."""
        outputs, inputs = self._cuts @ gone
        left: Array = self._sizes @ ((1 - outputs) * (1 - inputs)) / self._sizes.sum()
        return left


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def _taken(
    model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]
) -> dict[tuple[str, str], dict[str, float]]:
    """By module and side, how many of its channels go with a filter of each unit, on the average."""
    found: dict[tuple[str, str], dict[str, float]] = {}

    def note(module: str, side: str, unit: PrunableUnit, taken: float) -> None:
        own = found.setdefault((module, side), {})
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
                reads = item.dep.handler.__name__ == "prune_in_channels"
                # A filter of a grouped reader sees one group's inputs alone.
                groups = target.groups if reads and isinstance(target, nn.Conv2d) else 1
                side = "in" if reads and isinstance(target, (nn.Conv2d, nn.Linear)) else "out"
                note(names[id(target)], side, unit, len(item.idxs) / groups / unit.filters)
    for unit in units:
        if unit.layer not in alone:
            for module, (outputs, inputs) in _missing(model, image_shape, unit).items():
                note(module, "out", unit, outputs)
                note(module, "in", unit, inputs)
    return found


def _missing(model: nn.Module, image_shape: tuple[int, int, int], unit: PrunableUnit) -> dict[str, tuple[float, float]]:
    """By module, outputs and inputs that go with a filter of a coupled set, seen by taking some. Where not all take
    along as much (zero padding), of those that take the least: what is left is never more than it is said to be.
    """
    free = [index for index in range(unit.filters // unit.groups) if index not in unit.fixed]
    touched = Counter(place for _, places in (*unit.coupled, *unit.columns) for place in places)
    least = min(touched[index] for index in free)
    alike = [index for index in free if touched[index] == least]
    some = alike[: (len(alike) + 1) // 2]
    gone = [start + each for start in range(0, unit.filters, unit.filters // unit.groups) for each in some]
    own = copied(model)
    remove_filters(own, image_shape, {unit.layer: gone})
    found: dict[str, tuple[float, float]] = {}
    for name, module in model.named_modules():
        pruned = own.get_submodule(name)
        for key, tensor in module._parameters.items():
            left = pruned._parameters.get(key)
            if tensor is not None and left is not None and tensor.shape != left.shape:
                lost = [was - now for was, now in zip(tensor.shape, left.shape, strict=True)]
                outputs, inputs = [*lost, 0][:2]
                before = found.get(name, (0.0, 0.0))
                found[name] = max(before[0], outputs / len(gone)), max(before[1], inputs / len(gone))
    return found
