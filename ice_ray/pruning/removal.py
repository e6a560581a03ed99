"""Removing filters from a network, and giving a network the widths of a pruned one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn

from ice_ray.errors import UserError
from ice_ray.models.attention import number_of_heads, with_open_heads
from ice_ray.models.frozen import freeze
from ice_ray.models.layout import lay_out, mark_layout
from ice_ray.models.units import PruningStep
from ice_ray.pruning.attention import Heads, cut_heads, find_heads
from ice_ray.pruning.channel_trace import trace_channels
from ice_ray.pruning.coupled_sets import channels_of, coupled_sets, cut_out
from ice_ray.pruning.coupling import Coupling, coupling_of, dependency_graph, filters_of, removal_group
from ice_ray.pruning.torch_pruning import torch_pruning as tp

Left = Mapping[str, int | Sequence[int]]
"""Filters of the dense network that are left in each unit's layer: how many (the last of each run go), or which."""


def remove_filters(model: nn.Module, image_shape: tuple[int, int, int], removed: Mapping[str, Sequence[int]]) -> None:
    """Remove filters in place, with the batch norms that follow and the inputs of the layers that read them.

    Args:
        model: any module; its mode, device and number types stay.
        image_shape: (C, H, W) for tracing.
        removed: per layer (module path), the indices of the filters (hidden units) to remove, as the layer is now.
    """
    with_open_heads(model, list(removed))
    with surgery(model, image_shape) as graph:
        remove_from(model, image_shape, graph, removed)


def remove_from(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    graph: tp.DependencyGraph | None,
    removed: Mapping[str, Sequence[int]],
) -> None:
    """The same within `surgery`, whose graph it is."""
    modules = dict(model.named_modules())
    going = {layer: sorted(filters) for layer, filters in removed.items() if filters}
    for heads in heads_among(model, image_shape, going).values():
        if isinstance(heads, str):
            raise ValueError(heads)
        cut_heads(model, heads, going.pop(heads.attention))
    alone, coupled = parted(graph, modules, going)
    for layer, filters in alone.items():
        removal_group(graph, modules[layer], sorted(filters)).prune()
    if coupled:
        trace = trace_channels(model, image_shape)
        cut_out(model, trace, channels_of(trace, coupled))


def heads_among(model: nn.Module, image_shape: tuple[int, int, int], layers: Iterable[str]) -> dict[str, Heads | str]:
    """Of those of some modules that are attentions, their heads; or, in words, why these cannot go."""
    attentions = [path for path in layers if number_of_heads(model.get_submodule(path)) is not None]
    return find_heads(model, image_shape, attentions) if attentions else {}


def parted(
    graph: tp.DependencyGraph | None, modules: Mapping[str, nn.Module], removed: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Sequence[int]], dict[str, Sequence[int]]]:
    """What is to go, by whether nothing couples it to other layers' filters, or something does."""
    alone: dict[str, Sequence[int]] = {}
    coupled: dict[str, Sequence[int]] = {}
    for layer, filters in removed.items():
        if filters:
            is_alone = graph is not None and isinstance(coupling_of(graph, layer, modules), Coupling)
            (alone if is_alone else coupled)[layer] = filters
    return alone, coupled


@contextmanager
def surgery(model: nn.Module, image_shape: tuple[int, int, int]) -> Iterator[tp.DependencyGraph | None]:
    """The graph of a model that is to be cut, None where there is none; afterwards its mode and its trainable
    parameters are as before.
    """
    mark_layout(model, image_shape)
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    freeze(model, ())  # the graph is traced through autograd
    was_training = model.training
    model.eval()  # tracing must not move running statistics
    try:
        try:
            graph = dependency_graph(model, image_shape)
        except UserError:  # coupled channels are followed without it
            graph = None
        yield graph
    finally:
        model.train(was_training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(requires_grad[name])
        lay_out(model)


def shrink_to(model: nn.Module, image_shape: tuple[int, int, int], left: Left) -> None:
    """Give a dense model, in place, the filters of a pruned one, whose weights are then to be loaded.

    Raises:
        ValueError: a layer that is not there, or filters that no removal leaves.
    """
    with_open_heads(model, list(left))
    with surgery(model, image_shape) as graph:
        modules = dict(model.named_modules())
        surplus: dict[str, list[int]] = {}
        attentions = heads_among(model, image_shape, [layer for layer in left if layer in modules])
        sets: Mapping[str, Coupling | str] | None = None
        for layer, own in left.items():
            width = own if isinstance(own, int) else len(own)
            coupling: Coupling | str = "there is none"
            if layer in modules:
                coupling = coupling_of(graph, layer, modules) if graph is not None else "the graph has not got it"
            if (heads := attentions.get(layer)) is not None:
                coupling = heads if isinstance(heads, str) else heads.coupling
            elif isinstance(coupling, str) and layer in modules:
                sets = coupled_sets(trace_channels(model, image_shape)) if sets is None else sets
                found = sets.get(layer, coupling)
                coupling = found if isinstance(found, Coupling) else coupling
            if isinstance(coupling, str):
                raise ValueError(f"layer '{layer}' cannot have {width} filters: {coupling}")
            if not 0 < width <= coupling.filters or width % coupling.groups:
                raise ValueError(f"layer '{layer}' cannot have {width} of its {coupling.filters} filters")
            surplus[layer] = _last_of_each_run(coupling, width) if isinstance(own, int) else _others(coupling, own)
        remove_from(model, image_shape, graph, surplus)


def _last_of_each_run(coupling: Coupling, width: int) -> list[int]:
    run, kept = coupling.filters // coupling.groups, width // coupling.groups
    free = [position for position in range(run) if position not in coupling.fixed]
    if run - kept > len(free):
        raise ValueError(
            f"layer '{coupling.layer}' cannot have {width} filters: {len(coupling.fixed)} of them must stay"
        )
    gone = free[len(free) - (run - kept) :]
    return [start + position for start in range(0, coupling.filters, run) for position in gone]


def _others(coupling: Coupling, kept: Sequence[int]) -> list[int]:
    if beyond := [index for index in kept if not 0 <= index < coupling.filters]:
        raise ValueError(f"layer '{coupling.layer}' cannot have filter {beyond[-1]}: it has {coupling.filters}")
    run, groups = coupling.filters // coupling.groups, coupling.groups
    position, width = sorted(set(kept)), len(kept) // groups
    alike = [start + each for start in range(0, coupling.filters, run) for each in position[:width]]
    if list(kept) != alike:
        raise ValueError(f"layer '{coupling.layer}' cannot have just these of its {coupling.filters} filters")
    return [index for index in range(coupling.filters) if index not in set(kept)]


def widths_of(model: nn.Module, steps: Sequence[PruningStep]) -> dict[str, int]:
    """The filters left in each unit's layer."""
    modules = dict(model.named_modules())
    return {unit.layer: filters_of(modules[unit.layer]) for step in steps for unit in step.units}
