"""Taking filters out of a network for real, and putting a network into a pruned shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch_pruning as tp
from torch import nn

from ice_ray.pruning.units import PruningStep, dependency_graph

Widths = Mapping[str, int]
"""Filters that are left in each unit's layer."""


def remove_filters(model: nn.Module, image_shape: tuple[int, int, int], removed: Mapping[str, Sequence[int]]) -> None:
    """Remove filters in place, with the batch norms that follow and the inputs of the layers that read them.

    Args:
        model: any module; its mode, device and number types stay.
        image_shape: (C, H, W) for tracing.
        removed: per convolution (module path), the indices of the filters to remove, as the layer is now.
    """
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.requires_grad_(True)  # the graph is traced through autograd
    modules = dict(model.named_modules())
    was_training = model.training
    model.eval()  # tracing must not move running statistics
    graph = dependency_graph(model, image_shape)
    for layer, filters in removed.items():
        if filters:
            group = graph.get_pruning_group(modules[layer], tp.prune_conv_out_channels, idxs=sorted(filters))
            group.prune()
    model.train(was_training)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad[name])
    canonical_layout(model)


def shrink_to(model: nn.Module, image_shape: tuple[int, int, int], widths: Widths) -> None:
    """Give a dense model, in place, the widths of a pruned one, whose weights are then to be loaded.

    Raises:
        ValueError: a layer that is not there, or a width that no removal leads to.
    """
    surplus: dict[str, range] = {}
    modules = dict(model.named_modules())
    for layer, width in widths.items():
        conv = modules.get(layer)
        if not isinstance(conv, nn.Conv2d) or not 0 < width <= conv.out_channels:
            raise ValueError(f"layer '{layer}' cannot have {width} filters")
        surplus[layer] = range(width, conv.out_channels)
    remove_filters(model, image_shape, {layer: list(filters) for layer, filters in surplus.items()})


def widths_of(model: nn.Module, steps: Sequence[PruningStep]) -> dict[str, int]:
    """The filters left in each unit's layer."""
    modules = dict(model.named_modules())
    return {unit.layer: modules[unit.layer].out_channels for step in steps for unit in step.units}


def canonical_layout(model: nn.Module) -> None:
    """Give every 4-d weight fresh channels_last memory, in place.

    Surgery leaves strides that depend on how the tensor was cut, and kernels choose their arithmetic by
    strides: without this a resumed run would differ in the last bits from the unbroken one.
    """
    for parameter in model.parameters():
        layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
        fresh = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device).to(memory_format=layout)
        parameter.data = fresh.copy_(parameter.data)
        parameter.grad = None
