"""What can be pruned in a model, before anything is run: `ice-ray inspect`."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ice_ray.config.jobs import InspectConfig
from ice_ray.engine.target import macs
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.anatomy import Change, show_anatomy
from ice_ray.observe.terminal import say
from ice_ray.pruning.amounts import Amounts
from ice_ray.workflow.plan import find_ratio, open_network


def inspect_job(config: InspectConfig) -> None:
    """Print the units with their widths before and after, what they come to, and what cannot be pruned and why."""
    shape = (3, config.image_size, config.image_size)
    module = ModelSpec(config.model, config.num_classes).build()
    network, _ = open_network(module, config.model, shape, config.prune.selection)
    if network.frozen:
        say(describe_frozen(network.frozen, network.all_frozen))
    amounts = Amounts(config.ratio, config.prune.by_layer, config.prune.round_to)
    if config.target is not None:
        found = find_ratio(config.target, network, amounts, config.precision)
        say(f"--target {config.target}: ratio {found.ratio:g} leaves {found.share:.3f} of the dense model")
        amounts = dataclasses.replace(amounts, ratio=found.ratio)
    amounts.check(network.steps)
    widths = {unit.layer: unit.filters - amounts.removed(unit) for unit in network.units}
    cpu = torch.device("cpu")
    dense, pruned = network.build(cpu), network.build_pruned(widths, cpu)
    totals = [
        Change("parameters", _parameters(dense), _parameters(pruned)),
        Change("multiply-adds per image", macs(network, dense), macs(network, pruned)),
    ]
    own = {unit.layer: _parameters(dense.get_submodule(unit.layer)) for unit in network.units}
    show_anatomy(config.model, network.steps, widths, own, totals, network.refused)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
