"""The layers that read what was pruned get the weights that best reproduce the dense network's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation.normal_equations import NormalEquations
from ice_ray.pruning.compensation.patches import Places, input_rows, output_rows, positions_of, reads_and_gives

WIDEST = 8192
"""Inputs of a filter beyond which a layer is not refitted: its products would fill half a gigabyte."""


@dataclass(frozen=True)
class Problem:
    """One layer's least-squares problem, summed up over the calibration images of all processes.

    Attributes:
        layer: module path.
        equations: its sums; inputs of a filter in the order of the layer's weights.
        has_constant: whether a constant is fitted: the layer's bias, or the batch norm behind it takes it up.
    """

    layer: str
    equations: NormalEquations
    has_constant: bool


def is_narrow(layer: nn.Module) -> bool:
    """Whether a layer is a convolution or linear layer of which a filter does not have too many inputs."""
    return isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight[0].numel() <= WIDEST


def problem_of(context: ScoringContext, layer: str, outputs: Tensor) -> Problem:
    """Sum up what a layer reads in the network as it stands, and what it gave in the dense one.

    Args:
        outputs: (filters,) int64, which of the dense layer's filters the layer still has.
    """
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, groups = own.weight, getattr(own, "groups", 1)
    constant = own.bias is not None or context.norms.get(layer) is not None
    equations = NormalEquations(groups, weight[0].numel(), len(weight) // groups, constant, weight.device)
    dense = context.dense()
    for number, (images, _) in enumerate(context.batches()):
        given, output = reads_and_gives(context.model, layer, images)
        _, wanted = reads_and_gives(dense, layer, images)
        places = Places.drawn(
            len(images), positions_of(own, output), (*context.key, layer, number, context.rank), images.device
        )
        targets = output_rows(own, wanted, places)[:, outputs]
        size = output.shape[2:] if isinstance(own, nn.Conv2d) else output.shape[1:-1]
        equations.add(
            input_rows(own, given.float(), size, places), targets.float().unflatten(1, (groups, -1)).movedim(1, 0)
        )
    equations.reduce(context.reduction)
    return Problem(layer, equations, constant)


def refit(context: ScoringContext, layer: str, outputs: Tensor, ridge: float) -> tuple[float, float]:
    """Give a layer, in place, the weights that best reproduce what it gave in the dense network.

    Args:
        outputs: which of the dense layer's filters it still has.
        ridge: how strongly its weights are held where they are.

    Returns:
        The share of the dense outputs' mean square that is not reproduced, before and after.
    """
    problem = problem_of(context, layer, outputs)
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    groups = getattr(own, "groups", 1)
    # (filters, inputs) to (groups, inputs, filters of a group) and back.
    prior = own.weight.detach().double().flatten(1).unflatten(0, (groups, -1)).mT
    found = problem.equations.solve(prior, ridge)
    own.weight.data.copy_(found.mT.flatten(0, 1).view_as(own.weight))
    if own.bias is not None:
        inputs, targets = problem.equations.means
        own.bias.data.copy_((targets - (inputs[:, None] @ found)[:, 0]).flatten())
    return problem.equations.error(prior), problem.equations.error(found)


def readers_of(context: ScoringContext, order: Sequence[str]) -> list[str]:
    """The layers that read the filters of the step, in the order in which they run."""
    readers = {reader for unit in context.units for reader in unit.consumers}
    return [layer for layer in dict.fromkeys(order) if layer in readers]


def outputs_left(layer: nn.Module, filters: int, removed: Mapping[str, Sequence[int]], name: str) -> Tensor | None:
    """Which of `filters` dense filters a layer has after this step's removal; None where earlier steps took some too,
    so that nobody knows any more.
    """
    gone = set(removed.get(name, ()))
    left = [index for index in range(filters) if index not in gone]
    own = layer.weight
    assert isinstance(own, Tensor)
    return torch.tensor(left, device=own.device) if len(left) == len(own) else None
