"""Batch-norm statistics estimated anew on the network as it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.models.partial_forward import reads_and_gives
from ice_ray.repair.calibration_images import CalibrationImages
from ice_ray.repair.context import Reduction


def recalibrate(
    model: nn.Module,
    images: CalibrationImages,
    reduction: Reduction,
    first: str | None = None,
    last: str | None = None,
    settled: Collection[str] = (),
) -> None:
    """Set, in place, running mean and variance of the batch norms to those of the images of all processes.

    One pass. While it runs each of these norms normalises a batch by that batch's own statistics, as in training; what
    is kept are the mean and the (unbiased) variance over all batches together.

    Args:
        images: whose passes begin not behind `first`.
        first: module path of the layer from whose execution on norms are estimated; those before it stay.
        last: that of the layer at which forward passes end; norms behind it stay.
        settled: norms that stay.
    """
    with _counting(model, first, settled) as sums, torch.inference_mode():
        for number, (batch, _) in enumerate(images.batches()):
            with images.resuming(model, number):
                if last is None:
                    model(batch)
                else:
                    reads_and_gives(model, last, batch)
    for name, found in sums.items():
        count, total, squares = (reduction.sum(each) for each in found)
        if not count:
            continue  # not used behind that layer
        mean = total / count
        variance = (squares - count * mean.square()).clamp_min(0) / (count - 1).clamp_min(1)
        norm = model.get_submodule(name)
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


@contextmanager
def _counting(model: nn.Module, first: str | None, settled: Collection[str]) -> Iterator[dict[str, list[Tensor]]]:
    """While the block runs, norms from `first` on normalise by their batch and sum up what they read: how many
    values a channel has, their sum and the sum of their squares.
    """
    state = {"reached": first is None}
    handles = []

    def reach(*_: object) -> None:
        state["reached"] = True

    def forget(*_: object) -> None:
        state["reached"] = first is None

    def count(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].detach()
            rows = values.numel() // values.shape[1]
            norm.train(state["reached"] and rows > 1)  # a single value has no variance to be normalised by
            if state["reached"]:
                others = [dimension for dimension in range(values.ndim) if dimension != 1]
                count, total, squares = sums[name]
                count += rows
                total += values.sum(dim=others, dtype=torch.float64)
                squares += values.float().square().sum(dim=others, dtype=torch.float64)

        return hook

    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and name not in settled
    }
    sums = {name: _zeros(norm) for name, norm in norms.items()}
    kept = {name: (norm.momentum, norm.training) for name, norm in norms.items()}
    for name, norm in norms.items():
        norm.momentum = 0.0  # the pass itself moves nothing
        handles.append(norm.register_forward_pre_hook(count(name)))
    handles.append(model.register_forward_pre_hook(forget))
    if first is not None:
        handles.append(model.get_submodule(first).register_forward_pre_hook(reach))
    counted = {name: norm.num_batches_tracked for name, norm in norms.items()}
    before = {name: value.clone() for name, value in counted.items() if value is not None}
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
        for name, norm in norms.items():
            norm.momentum, training = kept[name]
            norm.train(training)
            if name in before and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(before[name])


def _zeros(norm: _BatchNorm) -> list[Tensor]:
    assert norm.running_mean is not None
    zeros = torch.zeros_like(norm.running_mean, dtype=torch.float64)
    return [zeros.new_zeros(()), zeros, zeros.clone()]
