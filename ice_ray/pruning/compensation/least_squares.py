"""Layers get the weights that best reproduce what they, and the sums that they end in, gave in the dense network.

All is fitted as it comes out of the batch norm behind a layer, whose factors stay: filters count by what they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ice_ray.models.passes import passage, reads_and_gives
from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation.channel_norms import ChannelNorm, norm_behind, take_up
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
_RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
_ABOUT_AS_WELL = 1.00001
"""Errors so near to the least differ by the last bits of the inputs, where some of these say the same as others."""
_HELD_OUT, _SAMPLE = 4, 4
_READY = "refitted to what the step reads"


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
    """What a layer reads, and what it is to give, over the calibration images of all processes.

    Attributes:
        fitted: over three of four images; held_out: over the others.
        norm: behind the layer, in the network as it stands.
        images, given: some of this process's images, and what the layer reads of them.
    """

    fitted: NormalEquations
    held_out: NormalEquations
    norm: ChannelNorm
    images: Tensor
    given: Tensor

    @property
    def whole(self) -> NormalEquations:
        """Over all images."""
        return self.fitted.merged(self.held_out)


def problem_of(context: ScoringContext, layer: str, outputs: Tensor) -> Problem:
    """The least-squares problem of a layer in the network as it stands.

    What it is to give is what it gives in the dense network, behind its norm; where that is added to something, what
    makes the sum what it is there. A constant is fitted where the layer has a bias or a norm that takes it up.

    Args:
        outputs: (filters,) int64, which of the dense layer's filters the layer still has.
    """
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, groups = own.weight, getattr(own, "groups", 1)
    dense, behind = context.dense(), context.norms.get(layer)
    norm, dense_norm = (norm_behind(network, layer, _own_norm(context, layer)) for network in (context.model, dense))
    is_known = (behind is None or norm.module is not None) and norm.is_all
    end = (behind or layer) if layer in context.sums and is_known else None
    constant = own.bias is not None or norm.module is not None
    sizes = groups, weight[0].numel(), len(weight) // groups, constant, weight.device
    fitted, held_out = NormalEquations(*sizes), NormalEquations(*sizes)
    some: tuple[Tensor, Tensor] | None = None
    for number, (images, _) in enumerate(context.batches()):
        with context.entering(context.model, number), context.entering(dense, number):
            now, then = (passage(network, layer, images, end) for network in (context.model, dense))
        given, output = now.given, now.output
        some = some or (images[:_SAMPLE].clone(), given[:_SAMPLE].clone())
        key = (*context.key, layer, number, context.rank)
        most = places_per_image(weight[0].numel())
        places = Places.drawn(len(images), positions_of(own, output), most, key, images.device)
        size = output.shape[2:] if isinstance(own, nn.Conv2d) else output.shape[1:-1]
        inputs = input_rows(own, given.float(), size, places)
        wanted = dense_norm.of(output_rows(own, then.output.float(), places))[:, outputs]
        if now.addend is not None and then.addend is not None:
            wanted += output_rows(own, then.addend.float(), places)[:, outputs]
            wanted -= output_rows(own, now.addend.float(), places)
        targets = (wanted * norm.heard).unflatten(1, (groups, -1)).movedim(1, 0)
        apart = (torch.arange(len(images), device=images.device) % _HELD_OUT == _HELD_OUT - 1).repeat_interleave(
            places.of_image.shape[1]
        )
        fitted.add(inputs[:, ~apart], targets[:, ~apart])
        held_out.add(inputs[:, apart], targets[:, apart])
    for equations in (fitted, held_out):
        equations.reduce(context.reduction)
    assert some is not None
    return Problem(fitted, held_out, norm, *some)


def made_ready(context: ScoringContext) -> list[str]:
    """The layers of the step that have been refitted to what they read, if that has been asked for."""
    ready: dict[str, Tensor] = context.known.get(_READY, {})
    return [unit.layer for unit in context.units if f"{unit.layer}.weight" in ready]


def _own_norm(context: ScoringContext, layer: str) -> str | None:
    """The norm behind a layer, if it is behind no other: its statistics can then go with the layer's weights."""
    norm = context.norms.get(layer)
    return norm if list(context.norms.values()).count(norm) == 1 else None


def ready_for(context: ScoringContext) -> dict[str, Tensor]:
    """Weights, and statistics of norms, with which the layers of the step best reproduce the dense network's outputs
    from what they read now, before any of their filters goes; by name. Worked out once for all who ask; empty where
    they read what they read there.
    """
    if _READY not in context.known:
        found: dict[str, Tensor] = {}
        runs = {layer: number for number, layer in enumerate(context.norms)}  # a later one reads what an earlier gives
        layers = sorted((unit.layer for unit in context.units), key=lambda layer: runs.get(layer, 0))
        touched = {layer: [layer, *filter(None, [context.norms.get(layer)])] for layer in layers}
        with _restored(context.model, [each for own in touched.values() for each in own]):
            for layer in layers:
                own, filters = context.model.get_submodule(layer), len(context.dense().get_parameter(f"{layer}.weight"))
                is_whole = len(context.model.get_parameter(f"{layer}.weight")) == filters
                if is_whole and can_be_refitted(own) and not _reads_the_same(context, layer):
                    refit(context, layer, problem_of(context, layer, torch.arange(filters)))
                    values = _tensors(context.model, touched[layer])
                    found |= {name: tensor.clone() for name, tensor in values.items()}
        context.known[_READY] = found
    ready: dict[str, Tensor] = context.known[_READY]
    return ready


def _reads_the_same(context: ScoringContext, layer: str) -> bool:
    """Whether a layer reads what it reads in the dense network: judged by the first images of every process."""
    differs = torch.zeros(1, dtype=torch.float64, device=context.model.get_parameter(f"{layer}.weight").device)
    for number, (images, _) in enumerate(context.batches()):
        dense = context.dense()
        with context.entering(context.model, number), context.entering(dense, number):
            read = [reads_and_gives(network, layer, images)[0] for network in (context.model, dense)]
        differs += float(not torch.equal(*read))
        break
    return not float(context.reduction.max(differs))


@contextmanager
def _restored(model: nn.Module, modules: Iterable[str]) -> Iterator[None]:
    """Whatever the block does to weights and statistics of these modules is undone."""
    kept = {name: tensor.clone() for name, tensor in _tensors(model, modules).items()}
    try:
        yield
    finally:
        assign(model, kept)


def assign(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give weights and statistics, by name, their values, in place."""
    own = _tensors(model, {name.rpartition(".")[0] for name in values})
    for name, value in values.items():
        own[name].copy_(value)


def _tensors(model: nn.Module, modules: Iterable[str]) -> dict[str, Tensor]:
    return {
        name: tensor
        for module in modules
        for name, tensor in model.get_submodule(module).state_dict(prefix=f"{module}.").items()
    }


def whole_problem(context: ScoringContext, layer: str) -> Problem | None:
    """That of a layer that reads filters of the step, before any of them has gone, and with the step's layers made
    ready; set up once for all who ask. None where it cannot be refitted, has lost outputs of its own, or does not read
    whole filters in their order.
    """
    own, name = context.model.get_submodule(layer), f"{layer}.weight"
    if not can_be_refitted(own) or len(own.get_parameter("weight")) != len(context.dense().get_parameter(name)):
        return None
    read = [unit for unit in context.units if layer in unit.consumers]
    if len(read) != 1 or inputs_of(own) % len(context.weight(read[0])):
        return None
    if layer not in context.known:
        ready = ready_for(context)
        with _restored(context.model, {name.rpartition(".")[0] for name in ready}):
            assign(context.model, ready)
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
    left_of = {name: getattr(problem, name).restricted(columns, rows) for name in ("fitted", "held_out")}
    norm = norm_behind(context.model, layer, _own_norm(context, layer))
    return replace(problem, norm=replace(norm, heard=problem.norm.heard[kept.flatten()]), **left_of)


def inputs_of(layer: nn.Module) -> int:
    """Features that a layer reads, all groups together."""
    return layer.get_parameter("weight").shape[1] * int(getattr(layer, "groups", 1))


def refit(context: ScoringContext, layer: str, problem: Problem) -> tuple[float, float]:
    """Give a layer, in place, the weights that best do what a problem asks; its norm or its bias takes up the constant.

    Of several strengths with which its weights are held where they are, the greatest is taken that does about as well
    as any on images held out of the fit; if that does no better there than leaving it alone, it is left alone.

    Returns:
        The share of the targets' mean square (about their means, where the fit has a constant) that is not reproduced,
        before and after.
    """
    fitted, held_out, whole = problem.fitted, problem.held_out, problem.whole
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, heard = own.weight.detach().double().flatten(1), problem.norm.heard[:, None]
    scale = torch.where(heard, problem.norm.scale.double()[:, None], 0.0)
    # (filters, inputs) to (groups, inputs, filters of a group) and back.
    prior = (weight * scale).unflatten(0, (getattr(own, "groups", 1), -1)).mT
    errors = {ridge: held_out.error(fitted.solve(prior, ridge)) for ridge in _RIDGES}
    ridge = next(ridge for ridge, error in errors.items() if error <= _ABOUT_AS_WELL * min(errors.values()))
    improves = errors[ridge] < held_out.error(prior)
    found = whole.solve(prior, ridge) if improves else prior
    if improves:
        own.weight.data.copy_(
            torch.where(heard, found.mT.flatten(0, 1) / torch.where(heard, scale, 1.0), weight).view_as(own.weight)
        )
    inputs, targets = whole.means
    take_up(problem.norm, own, (targets - (inputs[:, None] @ found)[:, 0]).flatten().float())
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
