"""The layers that read what was pruned get the weights that best reproduce the dense network's outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ice_ray.models.passes import reads_and_gives
from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation.normal_equations import NormalEquations
from ice_ray.pruning.compensation.patches import (
    Places,
    input_rows,
    output_rows,
    places_per_image,
    positions_of,
)

WIDEST = 8192
"""Inputs of a filter beyond which a layer is not refitted: their products alone fill half a gigabyte, solving takes
several times that.
"""
_RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT, _SAMPLE = 4, 4


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


@dataclass(frozen=True)
class Problem:
    """What a layer reads, and what it gave in the dense network, over the calibration images of all processes.

    Attributes:
        fitted: over three of four images; held_out: over the others.
        images, given: some of this process's images, and what the layer reads of them.
    """

    fitted: NormalEquations
    held_out: NormalEquations
    images: Tensor
    given: Tensor

    @property
    def whole(self) -> NormalEquations:
        """Over all images."""
        return self.fitted.merged(self.held_out)


def problem_of(context: ScoringContext, layer: str, outputs: Tensor) -> Problem:
    """The least-squares problem of a layer in the network as it stands.

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
    some: tuple[Tensor, Tensor] | None = None
    for number, (images, _) in enumerate(context.batches()):
        with context.entering(context.model, number), context.entering(dense, number):
            given, output = reads_and_gives(context.model, layer, images)
            _, wanted = reads_and_gives(dense, layer, images)
        some = some or (images[:_SAMPLE].clone(), given[:_SAMPLE].clone())
        key = (*context.key, layer, number, context.rank)
        most = places_per_image(weight[0].numel())
        places = Places.drawn(len(images), positions_of(own, output), most, key, images.device)
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
    assert some is not None
    return Problem(fitted, held_out, *some)


def whole_problem(context: ScoringContext, layer: str) -> Problem | None:
    """That of a layer that reads filters of the step, before any of them has gone; set up once for all who ask. None
    where it cannot be refitted, has lost outputs of its own, or does not read whole filters in their order.
    """
    own, name = context.model.get_submodule(layer), f"{layer}.weight"
    if not can_be_refitted(own) or len(own.get_parameter("weight")) != len(context.dense().get_parameter(name)):
        return None
    read = [unit for unit in context.units if layer in unit.consumers]
    if len(read) != 1 or inputs_of(own) % len(context.weight(read[0])):
        return None
    if layer not in context.known:
        context.known[layer] = problem_of(context, layer, torch.arange(len(own.get_parameter("weight"))))
    problem: Problem = context.known[layer]
    return problem


def remaining_problem(
    context: ScoringContext, layer: str, problem: Problem, filters: int, gone: Sequence[int], outputs: Tensor
) -> Problem | None:
    """A whole problem without the inputs that came from filters that have gone since; None where what is left does not
    read as before (a norm over channels stands between).

    Args:
        filters: how many there were.
        outputs: which of the layer's own are left.
    """
    own = context.model.get_submodule(layer)
    groups, device = int(getattr(own, "groups", 1)), problem.given.device
    features = problem.given.shape[1 if isinstance(own, nn.Conv2d) else -1]
    lost = torch.zeros(filters, dtype=torch.bool, device=device)
    lost[list(gone)] = True
    left = (~lost).repeat_interleave(features // filters).nonzero()[:, 0]
    now, _ = reads_and_gives(context.model, layer, problem.images)
    expected = problem.given.index_select(1 if isinstance(own, nn.Conv2d) else problem.given.ndim - 1, left)
    differs = torch.ones(1, dtype=torch.float64, device=device)
    if now.shape == expected.shape:
        differs *= float(not torch.allclose(now.float(), expected.float(), rtol=1e-3, atol=1e-4))
    if float(context.reduction.max(differs)):
        return None
    area = own.get_parameter("weight")[0, 0].numel()
    within = left.view(groups, -1) % (features // groups)
    columns = (within[:, :, None] * area + torch.arange(area, device=device)).flatten(1)
    kept = outputs.to(device).view(groups, -1)
    rows = kept - kept.new_tensor(range(groups))[:, None] * (problem.fitted.outputs)
    return replace(
        problem, fitted=problem.fitted.restricted(columns, rows), held_out=problem.held_out.restricted(columns, rows)
    )


def inputs_of(layer: nn.Module) -> int:
    """Features that a layer reads, all groups together."""
    return layer.get_parameter("weight").shape[1] * int(getattr(layer, "groups", 1))


def refit(context: ScoringContext, layer: str, problem: Problem) -> tuple[float, float]:
    """Give a layer, in place, the weights that best reproduce what it gave in the dense network.

    Of several strengths with which its weights are held where they are, the one is taken that does best on images held
    out of the fit; if none does better there than leaving it alone, it is left alone.

    Returns:
        The share of the dense outputs' mean square (about their means, where the fit has a constant) that is not
        reproduced, before and after.
    """
    fitted, held_out, whole = problem.fitted, problem.held_out, problem.whole
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    # (filters, inputs) to (groups, inputs, filters of a group) and back.
    prior = own.weight.detach().double().flatten(1).unflatten(0, (getattr(own, "groups", 1), -1)).mT
    ridge = min(_RIDGES, key=lambda ridge: held_out.error(fitted.solve(prior, ridge)))
    if held_out.error(fitted.solve(prior, ridge)) >= held_out.error(prior):
        return whole.error(prior), whole.error(prior)
    found = whole.solve(prior, ridge)
    own.weight.data.copy_(found.mT.flatten(0, 1).view_as(own.weight))
    if own.bias is not None:
        inputs, targets = whole.means
        own.bias.data.copy_((targets - (inputs[:, None] @ found)[:, 0]).flatten())
    return whole.error(prior), whole.error(found)


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
