"""What may be pruned: filters whose output nothing couples to another block."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

import torch
import torch_pruning as tp
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.errors import UserError
from ice_ray.models.trace import LayerTrace

_CONSUMER_HANDLERS = ("prune_in_channels",)


@dataclass(frozen=True)
class PrunableUnit:
    """A convolution whose filters can go without touching another block.

    Attributes:
        layer: module path of the convolution that owns the filters.
        filters: how many it has in the dense model.
        consumers: module paths of the layers that read them.
        inner: those of the consumers that are convolutions of the same block.
    """

    layer: str
    filters: int
    consumers: tuple[str, ...]
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningStep:
    """The units that are pruned together: those of one block. `number` counts from 1, shallow to deep."""

    number: int
    units: tuple[PrunableUnit, ...]

    @property
    def name(self) -> str:
        """The pruned layers, for people."""
        return " + ".join(unit.layer for unit in self.units)


def dependency_graph(model: nn.Module, image_shape: tuple[int, int, int]) -> tp.DependencyGraph:
    """Torch-Pruning's graph of which channels hang together, traced from one image of zeros (C, H, W)."""
    parameter = next(model.parameters())
    example = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch_pruning").setLevel(logging.ERROR)
        return tp.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)


def pruning_steps(
    model: nn.Module, image_shape: tuple[int, int, int], traces: tuple[LayerTrace, ...]
) -> tuple[PruningStep, ...]:
    """The steps of a run, from the shallow end to the deep (Algorithm 2, sigma).

    A unit is a convolution whose filters are read by other layers directly: no residual sum and no
    concatenation couples them to another block. Units of one block are one step; a block is a parent module
    that is no plain Sequential.

    Raises:
        UserError: nothing in the model may be pruned.
    """
    graph = dependency_graph(model, image_shape)
    modules = dict(model.named_modules())
    units = [unit for trace in traces if (unit := _unit(graph, trace.name, modules)) is not None]
    if not units:
        raise UserError(
            "the model has no convolution whose filters may be pruned: every one is coupled to others by a residual "
            "sum or a concatenation, or there is none"
        )
    blocks: dict[str, list[PrunableUnit]] = {}
    for unit in units:
        parent = unit.layer.rpartition(".")[0]
        block = unit.layer if isinstance(modules[parent], nn.Sequential) else parent or unit.layer
        blocks.setdefault(block, []).append(unit)
    return tuple(PruningStep(number, tuple(block)) for number, block in enumerate(blocks.values(), start=1))


def _unit(graph: tp.DependencyGraph, name: str, modules: dict[str, nn.Module]) -> PrunableUnit | None:
    conv = modules[name]
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1 or conv.out_channels < 2:
        return None
    names = {id(module): path for path, module in modules.items()}
    consumers: list[str] = []
    for item in graph.get_pruning_group(conv, tp.prune_conv_out_channels, idxs=[0]):
        target, pruned = item.dep.target, item.dep.handler.__name__
        path = names.get(id(target.module))
        if path is None:
            if "Concat" in target.name or "Split" in target.name or "Add" in target.name:
                return None
        elif pruned in _CONSUMER_HANDLERS and _reads_any_channels(target.module):
            consumers.append(path)
        elif target.module is not conv and not _follows_channelwise(target.module):
            return None
    # Filters that nobody reads are the model's outputs.
    if not consumers:
        return None
    readers = tuple(dict.fromkeys(consumers))
    block = _block_of(name, modules)
    inner = (path for path in readers if isinstance(modules[path], nn.Conv2d) and _block_of(path, modules) == block)
    return PrunableUnit(name, conv.out_channels, readers, tuple(inner))


def _block_of(name: str, modules: dict[str, nn.Module]) -> str:
    """The nearest module around a layer that is no plain sequence."""
    parent = name.rpartition(".")[0]
    while parent and isinstance(modules[parent], nn.Sequential):
        parent = parent.rpartition(".")[0]
    return parent


def _reads_any_channels(module: nn.Module) -> bool:
    """Whether the module takes any number of input channels. A grouped convolution does not: groups must stay equal."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _follows_channelwise(module: nn.Module) -> bool:
    """Whether the module merely follows its input channel by channel: a batch norm, or a depthwise convolution."""
    if isinstance(module, nn.Conv2d):
        return module.groups == module.in_channels == module.out_channels
    return isinstance(module, (_BatchNorm, nn.PReLU))


def removed_count(ratio: float, filters: int) -> int:
    """ceil(ratio x filters) in exact decimals: a ratio written .55 of 100 filters is 55, where floats say 56."""
    return math.floor((Decimal(repr(float(ratio))) * filters).to_integral_value(ROUND_CEILING))


def check_ratio(ratio: float, steps: tuple[PruningStep, ...]) -> None:
    """Raises UserError where the ratio is no share, or would leave a layer without filters."""
    if not (isinstance(ratio, (int, float)) and math.isfinite(ratio) and 0 < ratio < 1):
        raise UserError(f"ratio {ratio} must be a number inside (0, 1), the share of filters to remove")
    for step in steps:
        for unit in step.units:
            if removed_count(ratio, unit.filters) >= unit.filters:
                most = math.floor(1000 * (unit.filters - 1) / unit.filters) / 1000
                raise UserError(
                    f"ratio {ratio:g} would empty layer {unit.layer} ({unit.filters} filters); take at most {most:g}"
                )
