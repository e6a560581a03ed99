"""Removal tried on copies before anything runs: in eval mode, as a graph can misread an operation, and in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ice_ray.models.answers import logits_of
from ice_ray.models.copies import copied, unsettled
from ice_ray.models.layout import laid_out, layout_of
from ice_ray.models.units import PrunableUnit, PruningStep
from ice_ray.pruning.attention import Heads, silence_heads
from ice_ray.pruning.channel_trace import trace_channels
from ice_ray.pruning.coupled_sets import channels_of, columns_of, layer_norms_of
from ice_ray.pruning.coupling import filters_of, removal_group
from ice_ray.pruning.removal import heads_among, parted, remove_from, shrink_to, surgery
from ice_ray.pruning.stand_ins import StandIns
from ice_ray.pruning.torch_pruning import torch_pruning as tp
from ice_ray.randomness import generator

# Of the greatest output. In double precision a fault shows that has faded on its way through many layers.
_TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}

_DRAWS = 8


def faulty_layers(model: nn.Module, image_shape: tuple[int, int, int], steps: Sequence[PruningStep]) -> dict[str, str]:
    """The layers whose removal goes wrong, and how.

    About half of every unit's filters is removed from a copy in which nothing reads them any more (the readers' weights
    for them are zero): that must not change its outputs. Layer norms over them do there what those of the other
    channels alone are to do. Where something changes, halves of the units are tried, down to one,
    until what is left goes well together.

    Args:
        model: in eval mode; it is left as it is.
    """
    left = [unit for step in steps for unit in step.units]
    faults: dict[str, str] = {}
    probe = _probe(model, image_shape)
    while left and (found := _faults(probe, image_shape, left)):
        faults |= found
        left = [unit for unit in left if unit.layer not in faults]
    return {unit.layer: faults[unit.layer] for step in steps for unit in step.units if unit.layer in faults}


def _probe(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """A copy with random values in which faults show; a plain copy where the network raises with those."""
    probe, images = unsettled(model), torch.randn(2, *image_shape, generator=generator("verification"))
    try:
        with torch.no_grad():
            bears = bool(logits_of(probe(images)).isfinite().all())
    except Exception:  # another's module may raise anything
        bears = False
    return probe if bears else copied(model)


def _faults(probe: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]) -> dict[str, str]:
    fault = _fault(probe, image_shape, units)
    if fault is None:
        return {}
    if len(units) == 1:
        return {units[0].layer: fault}
    middle = len(units) // 2
    found = _faults(probe, image_shape, units[:middle]) | _faults(probe, image_shape, units[middle:])
    return found or {unit.layer: "removal goes wrong together with that of others" for unit in units}


def _fault(probe: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]) -> str | None:
    """In double precision where the network works in it."""
    try:
        return _difference(copied(probe).double(), image_shape, units, torch.float64)
    except Exception:
        pass
    try:
        return _difference(copied(probe), image_shape, units, torch.float32)
    except Exception as error:  # another's module may raise anything
        return f"removing its filters breaks the network ({(str(error).splitlines() or [''])[0][:120]})"


def _difference(
    own: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit], dtype: torch.dtype
) -> str | None:
    removed = {unit.layer: _half(unit) for unit in units}
    images = torch.randn(2, *image_shape, generator=generator("verification"), dtype=dtype)
    stand_ins = StandIns(own, images)
    with surgery(own, image_shape) as graph:
        before = stand_ins.outputs(images, _silence(own, image_shape, graph, removed))
        left = {layer: filters_of(own.get_submodule(layer)) - len(filters) for layer, filters in removed.items()}
        remove_from(own, image_shape, graph, removed)
    if any(filters_of(own.get_submodule(layer)) != width for layer, width in left.items()):
        return "others of its filters would go with those that are removed"
    after = stand_ins.outputs(images)
    with torch.no_grad():
        real = logits_of(own(images))
    if not before.shape == after.shape == real.shape:
        return "removing its filters changes the shape of the outputs"
    changed = not bool((before - after).abs().max() <= _TOLERANCES[dtype] * before.abs().max().clamp_min(1e-6))
    return "its filters are read in an order, or together in a way, that cannot be followed" if changed else None


def _half(unit: PrunableUnit) -> tuple[int, ...]:
    """Filters to remove, drawn for each unit, so that channels that are confused with others show. What is left of each
    run is a prime number that does not divide the run, so that reshapes into equal parts show, too; and where it can be
    helped it is not one stretch, which rolled on would look like itself.
    """
    run = unit.filters // unit.groups
    free = [position for position in range(run) if position not in unit.fixed]
    kept = next((left for left in range((run + 1) // 2, run) if run % left and _is_prime(left)), run - run // 2)
    count, drawn = min(run - kept, len(free)), generator("verification", unit.layer)
    for _ in range(_DRAWS):
        order = torch.randperm(len(free), generator=drawn)[len(free) - count :]
        positions = {free[int(each)] for each in order}
        if sum((each + 1) % run not in positions for each in positions) > 1:
            break
    return tuple(sorted(position + start for position in positions for start in range(0, unit.filters, run)))


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _silence(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    graph: tp.DependencyGraph | None,
    removed: Mapping[str, Sequence[int]],
) -> dict[str, Tensor]:
    """Zero every reader's weights for the filters. By layer norm, (channels,) bool, which of its channels are to go."""
    norms: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    attentions = heads_among(model, image_shape, removed)
    for heads in attentions.values():
        if isinstance(heads, Heads):
            silence_heads(model, heads, removed[heads.attention])
    others = {layer: filters for layer, filters in removed.items() if layer not in attentions}
    alone, coupled = parted(graph, modules, others)
    if coupled:
        trace = trace_channels(model, image_shape)
        gone = channels_of(trace, coupled)
        norms = layer_norms_of(model, trace, gone)
        with torch.no_grad():
            for reader, columns in columns_of(trace, gone).items():
                _forget(modules[reader], columns)
    with torch.no_grad():
        for layer, filters in alone.items():
            for item in removal_group(graph, modules[layer], list(filters)):
                target, reads = item.dep.target.module, item.dep.handler.__name__ == "prune_in_channels"
                if reads and isinstance(target, (nn.Conv2d, nn.Linear)):
                    _forget(target, item.idxs)
    return norms


def _forget(reader: nn.Conv2d | nn.Linear, channels: Sequence[int]) -> None:
    """Zero a reader's weights for some of its input channels."""
    groups = reader.groups if isinstance(reader, nn.Conv2d) else 1
    inputs, outputs = reader.weight.shape[1], len(reader.weight) // groups
    for channel in channels:
        group = int(channel) // inputs
        reader.weight[group * outputs : (group + 1) * outputs, int(channel) % inputs] = 0


_READ_IN_TRAINING = "its filters are read by what runs in training alone, such as an auxiliary head"


def untrainable_layers(
    model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]
) -> dict[str, str]:
    """The layers with half of whose filters removed a training pass fails, and why: an auxiliary head that reads them
    in training alone is in no trace.

    Args:
        model: left as it is.
    """
    if _trains(model, image_shape, units) or not _trains(model, image_shape, ()):
        return {}
    return {unit.layer: _READ_IN_TRAINING for unit in units if not _trains(model, image_shape, [unit])}


def _trains(model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]) -> bool:
    own = copied(model)
    images = torch.zeros(2, *image_shape)
    try:
        if units:
            halves = {unit: unit.filters // unit.groups // 2 * unit.groups for unit in units}
            shrink_to(own, image_shape, {unit.layer: max(half, len(unit.fixed)) for unit, half in halves.items()})
        with torch.no_grad():
            own.train()(laid_out(images, layout_of(own)))
    except Exception:  # the network is anybody's
        return False
    return True
