"""What can be pruned in a model, before anything is run: `ice-ray inspect`."""

from __future__ import annotations

from ice_ray.config.jobs import InspectConfig
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.anatomy import Inspection
from ice_ray.observe.terminal import say, show
from ice_ray.pruning.amounts import Amounts
from ice_ray.workflow.plan import find_for, open_network


def inspect_job(config: InspectConfig) -> None:
    """Print the units with their widths before and after, what they come to, and what cannot be pruned and why."""
    shape = (3, config.image_size, config.image_size)
    module = ModelSpec(config.model, config.num_classes).build()
    network, _ = open_network(module, config.model, shape, config.prune.selection)
    if network.frozen:
        say(describe_frozen(network.frozen, network.all_frozen))
    amounts = Amounts(config.ratio, config.prune.by_layer, config.prune.round_to)
    found = None
    if config.target is not None:
        found = find_for(config.target, network, amounts, config.precision)
        amounts = found.on(amounts)
    inspection = Inspection.of(network, amounts, config.model, found)
    show(inspection.table)
    for line in inspection.lines:
        say(line)
