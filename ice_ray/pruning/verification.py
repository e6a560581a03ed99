"""Whether removal does what the dependency graph says: tried on copies, for a graph can misread an operation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ice_ray.models.answers import logits_of
from ice_ray.pruning.coupling import dependency_graph, removal_group
from ice_ray.pruning.removal import remove_filters
from ice_ray.pruning.units import PrunableUnit, PruningStep
from ice_ray.randomness import generator

_TOLERANCE = 1e-3


def faulty_layers(model: nn.Module, image_shape: tuple[int, int, int], steps: Sequence[PruningStep]) -> dict[str, str]:
    """The layers whose removal goes wrong, and how.

    Half of every unit's filters is removed from a copy in which nothing reads them any more (the readers' weights for
    them are zero): that must not change its outputs. Where it does, units are tried one by one.

    Args:
        model: in eval mode; it is left as it is.
    """
    units = [unit for step in steps for unit in step.units]
    if _fault(model, image_shape, units) is None:
        return {}
    faults = {unit.layer: _fault(model, image_shape, [unit]) for unit in units}
    found = {layer: fault for layer, fault in faults.items() if fault is not None}
    return found or {unit.layer: "removal goes wrong together with that of others" for unit in units}


def _fault(model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]) -> str | None:
    own = copy.deepcopy(model)
    removed = {unit.layer: _half(unit) for unit in units}
    images = torch.randn(2, *image_shape, generator=generator("verification"))
    try:
        normalises = _silence(own, image_shape, removed)
        before = _outputs(own, images)
        remove_filters(own, image_shape, removed)
        after = _outputs(own, images)
    except Exception as error:  # another's module may raise anything
        return f"removing its filters breaks the network ({(str(error).splitlines() or [''])[0][:120]})"
    if before.shape != after.shape:
        return "removing its filters changes the shape of the outputs"
    changed = float((before - after).abs().max()) > _TOLERANCE * max(float(before.abs().max()), 1e-6)
    # A group norm takes its statistics over what is left: there only shapes can be compared.
    return "its filters are read in an order that cannot be followed" if changed and not normalises else None


def _half(unit: PrunableUnit) -> tuple[int, ...]:
    """Every unit's own, so that channels that are confused with others show."""
    run = unit.filters // unit.groups
    places = torch.randperm(run, generator=generator("verification", unit.layer))[: run // 2]
    return tuple(sorted(int(place) + start for place in places for start in range(0, unit.filters, run)))


def _silence(model: nn.Module, image_shape: tuple[int, int, int], removed: Mapping[str, Sequence[int]]) -> bool:
    """Make every reader deaf to the filters; returns whether a group norm lies between."""
    model.requires_grad_(True)
    graph = dependency_graph(model, image_shape)
    modules = dict(model.named_modules())
    normalises = False
    with torch.no_grad():
        for layer, filters in removed.items():
            for item in removal_group(graph, modules[layer], list(filters)):
                target = item.dep.target.module
                normalises |= isinstance(target, nn.GroupNorm)
                reads = item.dep.handler.__name__ == "prune_in_channels"
                if reads and isinstance(target, (nn.Conv2d, nn.Linear)):
                    _forget(target, item.idxs)
    return normalises


def _forget(reader: nn.Conv2d | nn.Linear, channels: Sequence[int]) -> None:
    """Zero a reader's weights for some of its input channels."""
    groups = reader.groups if isinstance(reader, nn.Conv2d) else 1
    inputs, outputs = reader.weight.shape[1], len(reader.weight) // groups
    for channel in channels:
        group = int(channel) // inputs
        reader.weight[group * outputs : (group + 1) * outputs, int(channel) % inputs] = 0


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return logits_of(model(images)).float()
