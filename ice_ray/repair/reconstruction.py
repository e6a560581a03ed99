"""Block reconstruction: the layers of a step are trained, by themselves, to give what they give in the dense network.

No labels, and no pass of the whole network: the passes begin where the step does and end where its filters have been
read, so an epoch of it costs a small part of an epoch of training (block-wise reconstruction as in BRECQ, Li et al.
2021, there after quantisation).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ice_ray.models.partial_forward import ACTIVATIONS, End, outputs_at
from ice_ray.randomness import generator
from ice_ray.repair.context import RepairContext
from ice_ray.repair.least_squares import can_be_refitted
from ice_ray.repair.normal_equations import at_lanes, by_image
from ice_ray.repair.relative_muon import RelativeMuon
from ice_ray.training.schedules.linear import linear

RATE, BATCH = 0.02, 32
PARTS = 0.25, 0.5, 0.75, 1.0
"""Of the way that training has gone, between which the images that judge choose."""
MOST_BYTES = 384 * 2**20
"""Of the dense network's outputs that a process holds while a step is reconstructed, and as much of those for mirrored
images; in half precision if need be. Beyond that they are computed anew for every batch.
"""
_AT_ONCE = 128
_SIDE_PER_POSITION = 16


def reconstruct(
    context: RepairContext, layers: Collection[str], ends: Collection[str], epochs: float
) -> tuple[dict[str, tuple[float, float]], bool]:
    """Train, in place, layers of a network, with the factors and shifts of the norms behind, towards what some of them
    give in the dense network, of the filters that they still have; where that is a term of a sum, towards the sum; and
    where an activation function alone reads it, towards what that gives: what it cuts off may be anything.

    By RelativeMuon, on batches of the calibration images over all processes, at a rate that falls to nothing. Where
    training mirrors images, each is looked at as it is and mirrored by turns, half of them mirrored in the first epoch.
    All norms keep their statistics. Some of the images are not trained on, and judge how far of the way is gone, in
    quarters: not at all, where no less of their targets is left unexplained than there was.

    Args:
        layers: that are trained: those of them whose weights are their own and may change, and that run once.
        ends: layers that the others lead to.
        epochs: passes over the calibration images that do not judge.

    Returns:
        By the module behind which it is measured, the share of the targets' mean square that is not reproduced of the
        images that judge, before and after; empty where there is nothing that could be aimed at. And whether all
        processes held the targets.
    """
    found, parameters = _ends(context, ends), _parameters(context, layers)
    if not found or not parameters or not context.images.judges.any():
        return {}, True
    with _training(context.model, parameters):
        aim = _Aim(context, found)
        before, start = aim.errors(), [each.detach().clone() for each in parameters]
        _descend(context, parameters, aim, epochs)
        after = _as_far_as_helps(parameters, start, aim, before)
    return {end.module: (was, now) for end, was, now in zip(found.values(), before, after, strict=True)}, aim.held


def _as_far_as_helps(
    parameters: Sequence[nn.Parameter], start: Sequence[Tensor], aim: _Aim, before: list[float]
) -> list[float]:
    """Of the way from the start to where they are, parameters go, in place, as far as the images that judge like best:
    the errors there. Few images lead too far.
    """
    end, errors = [each.detach().clone() for each in parameters], {0.0: before}

    def go(part: float) -> None:
        for own, here, there in zip(parameters, start, end, strict=True):
            own.data.copy_(here.lerp(there, part) if part else here)

    for part in PARTS:
        go(part)
        errors[part] = aim.errors()
    totals = {part: sum(each) for part, each in errors.items()}
    best = min(totals, key=lambda part: math.inf if math.isnan(totals[part]) else totals[part])
    go(best)
    return errors[best]


def _descend(context: RepairContext, parameters: Sequence[nn.Parameter], aim: _Aim, epochs: float) -> None:
    images = context.images
    trained = (~images.judges).nonzero().flatten()
    optimizer = RelativeMuon(parameters, _matrices(context))
    per_epoch = math.ceil(len(trained) / BATCH)
    steps = max(1, round(per_epoch * epochs))
    first = torch.randint(images.views, (images.count,), generator=generator(*context.key, "mirrored"))
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        if not number:
            drawn = torch.randperm(len(trained), generator=generator(*context.key, "reconstruction", epoch))
            shuffled = trained[drawn]
        which = shuffled[number * BATCH : (number + 1) * BATCH]
        indices = (which + images.count * ((first[which] + epoch) % images.views)).sort().values
        for each in parameters:
            each.grad = None
        own = indices[images.held[indices % images.count]]
        if len(own):
            (aim.loss(own) / len(indices)).backward()
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        # At once: processes wait for each other once a step, and not once a tensor.
        sums = context.reduction.sum(torch.cat([each.flatten() for each in found]))
        for each, part in zip(parameters, sums.split([each.numel() for each in parameters]), strict=True):
            each.grad = part.view_as(each)
        optimizer.step(RATE * linear((step + 0.5) / steps))


def _matrices(context: RepairContext) -> list[Tensor]:
    """Weights of layers of which all outputs read the same inputs, but for those that have few positions for their
    size: to make their steps orthogonal would take longer than a batch's passes (for the first linear layer of VGG-16
    4.5 trillion multiply-adds a step).
    """
    found, positions = [], context.structure.positions
    for name, layer in context.model.named_modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            side = min(layer.weight.flatten(1).shape)
            if side <= _SIDE_PER_POSITION * positions.get(name, math.inf):
                found.append(layer.weight)
    return found


class _Aim:
    """What the step's layers are to give for each calibration image, and how far from it they are.

    Args:
        ends: by layer, where it is looked at, in either network.

    Attributes:
        held: whether all processes hold what is aimed at.
    """

    def __init__(self, context: RepairContext, ends: Mapping[str, End]) -> None:
        self._context, self._images, self._ends = context, context.images, tuple(ends.values())
        self._left = [_channels_left(context, layer) for layer in ends]
        self._lanes = [context.lanes(layer) for layer in ends]
        named = context.structure.activations
        self._activations = [ACTIVATIONS[named[layer]] if layer in named else None for layer in ends]
        own = self._images.held.nonzero().flatten()
        self._own, self._views = own, [own + view * self._images.count for view in range(self._images.views)]
        self._judges = own[self._images.judges[own]]
        self._targets: list[Tensor] = []
        targets, filled = list[Tensor](), 0
        squares = torch.zeros(len(ends), dtype=torch.float64, device=self._device)
        for indices in (part for view in self._views for part in self._parts(view)):
            wanted = self._wanted(indices)
            squares += torch.stack([each.double().square().sum() for each in self._activated(wanted)])
            if not filled:
                targets = _rooms(wanted, len(own), len(self._views))
            parts = [
                room[filled : filled + len(indices)].copy_(each) for room, each in zip(targets, wanted, strict=False)
            ]
            if not all(bool(part.isfinite().all()) for part in parts if part.dtype == torch.float16):
                targets = []  # too large for it
            filled += len(indices)
        self._scales = (context.reduction.sum(squares) / (self._images.count * len(self._views))).tolist()
        self._targets = targets
        lacking = torch.tensor(float(bool(filled and not targets)), dtype=torch.float64, device=self._device)
        self.held = not float(context.reduction.max(lacking))

    @property
    def _device(self) -> torch.device:
        return next(self._context.model.parameters()).device

    def loss(self, indices: Tensor) -> Tensor:
        """Of these images of this process's, the squares of what is not reproduced over an image's mean square of
        targets; the sum over images, the mean over ends.
        """
        return self._shares(indices).sum() / len(self._ends)

    @torch.no_grad()
    def errors(self) -> list[float]:
        """Per end, what is not reproduced, over the images of all processes that judge, none of them mirrored; as a
        share of the mean square of all images' targets.
        """
        total = torch.zeros(len(self._ends), dtype=torch.float64, device=self._device)
        for indices in self._parts(self._judges):
            total += self._shares(indices).double()
        return (self._context.reduction.sum(total) / int(self._images.judges.sum())).tolist()

    def _shares(self, indices: Tensor) -> Tensor:
        given, wanted = self._given(self._context.model, indices), self._wanted(indices)
        pairs = zip(self._activated(given), self._activated(wanted), self._scales, strict=True)
        return torch.stack(
            [(own - wanted.view_as(own)).square().sum() / (scale or 1.0) for own, wanted, scale in pairs]
        )

    def _wanted(self, indices: Tensor) -> list[Tensor]:
        if self._targets:
            count = self._images.count
            rows = torch.searchsorted(self._own, indices % count) + len(self._own) * (indices >= count)
            rows = rows.to(self._device)
            kind = next(self._context.model.parameters()).dtype
            return [each[rows].to(kind) for each in self._targets]
        with torch.no_grad():
            found = self._given(self._context.dense(), indices)
        found = [
            each if left is None else each.index_select(*left) for each, left in zip(found, self._left, strict=True)
        ]
        return [each if own is None else at_lanes(each, own) for each, own in zip(found, self._lanes, strict=True)]

    def _given(self, network: nn.Module, indices: Tensor) -> list[Tensor]:
        with self._images.passing(network, indices) as images:
            return [by_image(each, len(indices)) for each in outputs_at(network, self._ends, images)]

    def _activated(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [
            each if activation is None else activation(each)
            for each, activation in zip(values, self._activations, strict=True)
        ]

    def _parts(self, indices: Tensor) -> Sequence[Tensor]:
        return indices.split(_AT_ONCE) if len(indices) else ()


def _rooms(some: Sequence[Tensor], images: int, views: int) -> list[Tensor]:
    """To hold what so many images, in so many views, give at each end, in the layout of some of it: in half precision
    where it would be too much, and none where it is so in half precision, too.
    """
    size = sum(each.nbytes / len(each) for each in some) * images
    if size > 2 * MOST_BYTES:
        return []
    rooms = []
    for each in some:
        is_last = each.ndim == 4 and each.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_last else torch.contiguous_format
        kind = each.dtype if size <= MOST_BYTES else torch.float16
        shape = images * views, *each.shape[1:]
        rooms.append(torch.empty(shape, dtype=kind, device=each.device, memory_format=layout))
    return rooms


def _ends(context: RepairContext, layers: Collection[str]) -> dict[str, End]:
    """By layer, behind its norm if that is its own."""
    structure, found = context.structure, dict[str, End]()
    for layer in layers:
        norm = structure.own_norm(layer)
        is_alone = norm is not None or structure.norms.get(layer) is None
        found[layer] = End(norm or layer, is_alone and layer in structure.residual_branches)
    return found


def _channels_left(context: RepairContext, layer: str) -> tuple[int, Tensor] | None:
    """Which of the dense network's channels there are behind a layer, and in which dimension; None where all are."""
    outputs = context.outputs(layer)
    if len(outputs) == context.filters(layer, of_dense=True):
        return None
    return (-3 if isinstance(context.model.get_submodule(layer), nn.Conv2d) else -1), outputs


def _parameters(context: RepairContext, layers: Collection[str]) -> list[nn.Parameter]:
    """What is trained: of layers that run once, and of norms that are behind no other layer."""
    structure, runs, found = context.structure, Counter(context.structure.order), dict[int, nn.Parameter]()
    for layer in dict.fromkeys(structure.order):
        own = context.model.get_submodule(layer)
        if layer in layers and runs[layer] == 1 and layer not in structure.fixed and can_be_refitted(own):
            norm = structure.own_norm(layer)
            modules = [own] if norm is None else [own, context.model.get_submodule(norm)]
            found |= {id(each): each for module in modules for each in module.parameters() if each.requires_grad}
    return list(found.values())


@contextmanager
def _training(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """While the block runs, these parameters have gradients and no others do; forward passes are as in eval mode."""
    asked = [(each, each.requires_grad) for each in model.parameters()]
    try:
        model.requires_grad_(False)
        for each in parameters:
            each.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for each, had in asked:
            each.requires_grad_(had)
            each.grad = None
