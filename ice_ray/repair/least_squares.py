"""Layers get the weights that best reproduce what they, and the sums that they end in, gave in the dense network.

All is fitted as it comes out of the batch norm behind a layer, whose factors stay: filters count by what they do.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from ice_ray.models.kinds import computes_as_usual
from ice_ray.models.partial_forward import Passage, passage
from ice_ray.repair.context import RepairContext
from ice_ray.repair.normal_equations import (
    NormalEquations,
    Positions,
    at_lanes,
    by_image,
    input_rows,
    output_rows,
    positions_of,
    positions_per_image,
)

WIDEST = 8192
"""Inputs of a filter beyond which a layer is not refitted: their products alone fill half a gigabyte, solving takes
several times that.
"""
_RIDGES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
_ABOUT_AS_WELL = 1.00001
"""Errors so near to the least differ by the last bits of the inputs, where some of these say the same as others."""
_SAMPLE = 4
_SILENT = 1e-4
"""Of the greatest factor that a norm has learned: filters with less are heard by nobody behind it."""


def can_be_refitted(layer: nn.Module) -> bool:
    """Whether a layer computes what torch's own convolutions and linear layers do, from weights of its own, and has
    not too many inputs a filter.
    """
    if not isinstance(layer, (nn.Conv2d, nn.Linear)) or is_parametrized(layer):
        return False
    return computes_as_usual(layer) and layer.weight[0].numel() <= WIDEST


@dataclass(frozen=True)
class ChannelNorm:
    """y -> scale x y + shift.

    Attributes:
        scale, shift: (filters,).
        heard: (filters,) bool, which filters can be heard behind the norm: those that its factors do not silence.
        module: the norm; None where there is none, or one that is not known, and nothing is done.
    """

    scale: Tensor
    shift: Tensor
    heard: Tensor
    module: _BatchNorm | None

    @property
    def is_affine(self) -> bool:
        """Whether the norm does nothing else: some have an activation built in."""
        return self.module is None or type(self.module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)

    def of(self, rows: Tensor) -> Tensor:
        """(rows, filters) behind the norm."""
        return rows * self.scale + self.shift


def norm_behind(model: nn.Module, layer: str, norm: str | None) -> ChannelNorm:
    """The norm that directly follows a layer, by its path, where it has statistics of its own."""
    weight = model.get_parameter(f"{layer}.weight")
    one, module = torch.ones(len(weight), device=weight.device), model.get_submodule(norm) if norm is not None else None
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return ChannelNorm(one, torch.zeros_like(one), one.bool(), None)
    factor = one if module.weight is None else module.weight.detach()
    scale = (module.running_var + module.eps).rsqrt() * factor
    shift = (0 * one if module.bias is None else module.bias.detach()) - module.running_mean * scale
    return ChannelNorm(scale, shift, factor.abs() > _SILENT * factor.abs().max(), module)


def take_up(norm: ChannelNorm, layer: nn.Conv2d | nn.Linear, constant: Tensor) -> None:
    """Let layer and norm add a constant (filters,), where one of them can: in place."""
    if norm.module is not None:
        assert norm.module.running_mean is not None
        bias = 0.0 if layer.bias is None else layer.bias.detach()
        added = constant if norm.module.bias is None else constant - norm.module.bias.detach()
        mean = bias - added / torch.where(norm.heard, norm.scale, 1.0)
        norm.module.running_mean.copy_(torch.where(norm.heard, mean, norm.module.running_mean))
    elif layer.bias is not None:
        layer.bias.data.copy_(constant)


@dataclass(frozen=True)
class Problem:
    """What a layer reads, and what it is to give, over the calibration images of all processes.

    Attributes:
        fitted: over the images that do not judge; held_out: over those that do.
        norm: behind the layer, in the network as it stands.
        images, given: some of this process's images, and what the layer reads of them.
        outputs: (filters,) int64, which of the dense network's filters the layer has.
    """

    fitted: NormalEquations
    held_out: NormalEquations
    norm: ChannelNorm
    images: Tensor
    given: Tensor
    outputs: Tensor


def problem_of(context: RepairContext, layer: str) -> Problem:
    """The least-squares problem of a layer in the network as it stands.

    What it is to give is what it gives in the dense network, behind its norm; where that is added to something, what
    makes the sum what it is there; of the filters that it still has. A constant is fitted where the layer has a bias or
    a norm that takes it up.
    """
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, groups = own.weight, getattr(own, "groups", 1)
    dense, structure, outputs = context.dense(), context.structure, context.outputs(layer)
    behind, own_norm = structure.norms.get(layer), structure.own_norm(layer)
    norm, dense_norm = (norm_behind(network, layer, own_norm) for network in (context.model, dense))
    is_known = (behind is None or norm.module is not None) and norm.is_affine
    end = (behind or layer) if layer in structure.residual_branches and is_known else None
    constant = own.bias is not None or norm.module is not None
    sizes = groups, weight[0].numel(), len(weight) // groups, constant, weight.device
    fitted, held_out = NormalEquations(*sizes), NormalEquations(*sizes)
    some: tuple[Tensor, Tensor] | None = None
    for number, (images, _) in enumerate(context.images.batches()):
        passed = {}
        for network in (context.model, dense):
            if network not in passed:  # before any filter has gone they may be one
                with context.images.resuming(network, number):
                    passed[network] = passage(network, layer, images, end)
        now, then = passed[context.model], passed[dense]
        if isinstance(own, nn.Linear):
            now, then = (_by_image(each, len(images)) for each in (now, then))
            then = _at_lanes(then, context.lanes(layer))
        given, output = now.given, now.output
        some = some or (images[:_SAMPLE].clone(), given[:_SAMPLE].clone())
        key = (*context.key, layer, number, context.images.rank)
        most = positions_per_image(weight[0].numel())
        positions = Positions.drawn(len(images), positions_of(own, output), most, key, images.device)
        size = output.shape[2:] if isinstance(own, nn.Conv2d) else output.shape[1:-1]
        inputs = input_rows(own, given.float(), size, positions)
        wanted = dense_norm.of(output_rows(own, then.output.float(), positions))[:, outputs]
        if now.shortcut is not None and then.shortcut is not None:
            wanted += output_rows(own, then.shortcut.float(), positions)[:, outputs]
            wanted -= output_rows(own, now.shortcut.float(), positions)
        targets = (wanted * norm.heard).unflatten(1, (groups, -1)).movedim(1, 0)
        apart = context.images.judges_of(number).to(images.device).repeat_interleave(positions.of_image.shape[1])
        fitted.add(inputs[:, ~apart], targets[:, ~apart])
        held_out.add(inputs[:, apart], targets[:, apart])
    for equations in (fitted, held_out):
        equations.reduce(context.reduction)
    assert some is not None
    return Problem(fitted, held_out, norm, *some, outputs)


def _by_image(passed: Passage, images: int) -> Passage:
    parts = passed.given, passed.output, passed.shortcut
    return Passage(*(None if each is None else by_image(each, images) for each in parts))  # type: ignore[arg-type]


def _at_lanes(passed: Passage, lanes: Tensor | None) -> Passage:
    """What a linear layer reads and gives at some of its positions, side by side."""
    if lanes is None:
        return passed
    parts = passed.given, passed.output, passed.shortcut
    return Passage(*(None if each is None else at_lanes(each, lanes) for each in parts))  # type: ignore[arg-type]


def refit(context: RepairContext, layer: str, problem: Problem) -> tuple[float, float]:
    """Give a layer, in place, the weights that best do what a problem asks; its norm or its bias takes up the constant.

    Of several strengths with which its weights are held where they are, the greatest is taken that does about as well
    as any on the images that judge; if that does no better there than leaving them alone, they are left alone.

    Returns:
        The share of the targets' mean square (about their means, where the fit has a constant) that is not reproduced,
        of the images that judge, before and after.
    """
    fitted, held_out = problem.fitted, problem.held_out
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    weight, heard = own.weight.detach().double().flatten(1), problem.norm.heard[:, None]
    scale = torch.where(heard, problem.norm.scale.double()[:, None], 0.0)
    # (filters, inputs) to (groups, inputs, filters of a group) and back.
    prior = (weight * scale).unflatten(0, (getattr(own, "groups", 1), -1)).mT
    errors = {ridge: held_out.error(fitted.solve(prior, ridge)) for ridge in _RIDGES}
    ridge = next(ridge for ridge, error in errors.items() if error <= _ABOUT_AS_WELL * min(errors.values()))
    improves = errors[ridge] < held_out.error(prior)
    found = fitted.solve(prior, ridge) if improves else prior
    if improves:
        _give(own, problem.norm, found)
    _take_up_constant(own, problem, found)
    return held_out.error(prior), held_out.error(found)


def assign_weights(context: RepairContext, layer: str, problem: Problem, found: Tensor) -> None:
    """Give a layer, in place, weights (groups, inputs, filters of a group) that a problem has been solved with, and the
    constant that goes with them.
    """
    own = context.model.get_submodule(layer)
    assert isinstance(own, (nn.Conv2d, nn.Linear))
    _give(own, problem.norm, found)
    _take_up_constant(own, problem, found)


def _give(own: nn.Conv2d | nn.Linear, norm: ChannelNorm, found: Tensor) -> None:
    weight, heard = own.weight.detach().double().flatten(1), norm.heard[:, None]
    scale = torch.where(heard, norm.scale.double()[:, None], 1.0)
    own.weight.data.copy_(torch.where(heard, found.mT.flatten(0, 1) / scale, weight).view_as(own.weight))


def _take_up_constant(own: nn.Conv2d | nn.Linear, problem: Problem, found: Tensor) -> None:
    inputs, targets = problem.fitted.means
    take_up(problem.norm, own, (targets - (inputs[:, None] @ found)[:, 0]).flatten().float())


def readers_of(context: RepairContext) -> list[str]:
    """The layers that read the filters of the step, in the order in which they run; but for those that run twice, whose
    weights have to serve both times.
    """
    order = context.structure.order
    readers, runs = {reader for unit in context.units for reader in unit.consumers}, Counter(order)
    return [layer for layer in order if layer in readers and runs[layer] == 1]
