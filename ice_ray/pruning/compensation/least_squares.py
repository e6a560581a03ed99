"""The layers that read what was pruned get the weights that best reproduce the dense network's outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation.normal_equations import NormalEquations
from ice_ray.pruning.compensation.patches import Places, input_rows, output_rows, positions_of, reads_and_gives

WIDEST = 8192
"""Inputs of a filter beyond which a layer is not refitted: their products alone fill half a gigabyte, solving takes
several times that.
"""
_RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT = 4


def can_be_refitted(layer: nn.Module) -> bool:
    """Whether a layer computes what torch's own convolutions and linear layers do, from weights of its own, and has
    not too many inputs a filter.
    """
    if not isinstance(layer, (nn.Conv2d, nn.Linear)) or is_parametrized(layer):
        return False
    plain = type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward)
    if isinstance(layer, nn.Conv2d):
        plain = plain and type(layer)._conv_forward is nn.Conv2d._conv_forward
    return plain and layer.weight[0].numel() <= WIDEST


def problem_of(context: ScoringContext, layer: str, outputs: Tensor) -> tuple[NormalEquations, NormalEquations]:
    """What a layer reads in the network as it stands, and what it gave in the dense one: the least-squares problem over
    the calibration images of all processes, and the same over every fourth of them, which are held out of it.

    A constant is fitted where the layer has a bias, or a batch norm behind it takes it up.

    Args:
        outputs: (filters,) int64, which of the dense layer's filters the layer still has.
    """
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, groups = own.weight, getattr(own, "groups", 1)
    constant = own.bias is not None or context.norms.get(layer) is not None
    sizes = groups, weight[0].numel(), len(weight) // groups, constant, weight.device
    fitted, held_out = NormalEquations(*sizes), NormalEquations(*sizes)
    dense = context.dense()
    for number, (images, _) in enumerate(context.batches()):
        given, output = reads_and_gives(context.model, layer, images)
        _, wanted = reads_and_gives(dense, layer, images)
        key = (*context.key, layer, number, context.rank)
        places = Places.drawn(len(images), positions_of(own, output), key, images.device)
        size = output.shape[2:] if isinstance(own, nn.Conv2d) else output.shape[1:-1]
        inputs = input_rows(own, given.float(), size, places)
        targets = output_rows(own, wanted.float(), places)[:, outputs].unflatten(1, (groups, -1)).movedim(1, 0)
        apart = (torch.arange(len(images), device=images.device) % _HELD_OUT == _HELD_OUT - 1).repeat_interleave(
            places.of_image.shape[1]
        )
        fitted.add(inputs[:, ~apart], targets[:, ~apart])
        held_out.add(inputs[:, apart], targets[:, apart])
    for equations in (fitted, held_out):
        equations.reduce(context.reduction)
    return fitted, held_out


def refit(context: ScoringContext, layer: str, outputs: Tensor) -> tuple[float, float]:
    """Give a layer, in place, the weights that best reproduce what it gave in the dense network.

    Of several strengths with which its weights are held where they are, the one is taken that does best on images held
    out of the fit; if none does better there than leaving it alone, it is left alone.

    Args:
        outputs: which of the dense layer's filters it still has.

    Returns:
        The share of the dense outputs' mean square (about their means, where the fit has a constant) that is not
        reproduced, before and after.
    """
    problem, held_out = problem_of(context, layer, outputs)
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    # (filters, inputs) to (groups, inputs, filters of a group) and back.
    prior = own.weight.detach().double().flatten(1).unflatten(0, (getattr(own, "groups", 1), -1)).mT
    ridge = min(_RIDGES, key=lambda ridge: held_out.error(problem.solve(prior, ridge)))
    if held_out.error(problem.solve(prior, ridge)) >= held_out.error(prior):
        problem.merge(held_out)
        return problem.error(prior), problem.error(prior)
    problem.merge(held_out)
    found = problem.solve(prior, ridge)
    own.weight.data.copy_(found.mT.flatten(0, 1).view_as(own.weight))
    if own.bias is not None:
        inputs, targets = problem.means
        own.bias.data.copy_((targets - (inputs[:, None] @ found)[:, 0]).flatten())
    return problem.error(prior), problem.error(found)


def readers_of(context: ScoringContext, order: Sequence[str]) -> list[str]:
    """The layers that read the filters of the step, in the order in which they run; but for those that run twice, whose
    weights have to serve both times.
    """
    readers, runs = {reader for unit in context.units for reader in unit.consumers}, Counter(order)
    return [layer for layer in order if layer in readers and runs[layer] == 1]


def outputs_left(layer: nn.Module, filters: int, removed: Mapping[str, Sequence[int]], name: str) -> Tensor | None:
    """Which of `filters` dense filters a layer has after this step's removal; None where earlier steps took some too,
    so that nobody knows any more.
    """
    gone = set(removed.get(name, ()))
    left = [index for index in range(filters) if index not in gone]
    own = layer.weight
    assert isinstance(own, Tensor)
    return torch.tensor(left, device=own.device) if len(left) == len(own) else None
