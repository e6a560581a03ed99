"""Time on a device, and how much arithmetic passes of a network are."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from ice_ray.models.answers import logits_of
from ice_ray.models.layout import laid_out, layout_of
from ice_ray.models.trace import LayerTrace
from ice_ray.repair.normal_equations import positions_per_image
from ice_ray.training.config import Precision
from ice_ray.training.precision import autocast


class Stopwatch:
    """Seconds since it was made, with the device's queue of work finished at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._now()

    def seconds(self) -> float:
        """Seconds until now."""
        return self._now() - self._start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def forward_flops(model: nn.Module, traces: Sequence[LayerTrace]) -> float:
    """Floating-point operations of one image's forward pass: 2 x multiply-adds of convolutions and linear layers."""
    return sum(2.0 * multiply_adds(model, trace) for trace in traces)


def refit_flops(model: nn.Module, dense: nn.Module, traces: Sequence[LayerTrace], layer: str) -> float:
    """Of one calibration image: a pass of the network and one of the dense network as far as the layer, and the
    products of all pairs of its inputs at every sampled place.
    """
    reached = traces[: [trace.name for trace in traces].index(layer) + 1]
    inputs = model.get_parameter(f"{layer}.weight")[0].numel()
    positions = min(positions_per_image(inputs), reached[-1].positions)
    return forward_flops(model, reached) + forward_flops(dense, reached) + 2.0 * positions * inputs**2


def training_flops(model: nn.Module, traces: Sequence[LayerTrace]) -> float:
    """Of one image's forward and backward pass: frozen weights need no gradient, nor does an input before which
    nothing trains (counted by order of execution: branches side by side are taken as one after the other).
    """
    total = forward_flops(model, traces)
    trains_before = False
    for trace in traces:
        own = 2.0 * multiply_adds(model, trace)
        trains = model.get_parameter(f"{trace.name}.weight").requires_grad
        total += own * (trains_before + trains)
        names = (trace.name,) if trace.norm is None else (trace.name, trace.norm)
        trains_before |= any(each.requires_grad for name in names for each in model.get_submodule(name).parameters())
    return total


def multiply_adds(model: nn.Module, trace: LayerTrace) -> int:
    """Multiply-adds of one layer for one image, at its present width."""
    gone = sum((filters - len(model.get_parameter(f"{layer}.weight"))) * each for layer, filters, each in trace.lanes)
    return (trace.positions - gone) * model.get_parameter(f"{trace.name}.weight").numel()


def calibrate_speed(
    model: nn.Module,
    traces: Sequence[LayerTrace],
    image_shape: tuple[int, int, int],
    device: torch.device,
    precision: Precision,
    batch_size: int,
    seconds: float = 1.0,
) -> float:
    """Operations a second of forward-and-backward passes of `model`, measured alone on `device`, for about `seconds` or
    one pass, which may take longer. One more warms up, and one tells how many to take.
    """
    images = laid_out(torch.zeros(batch_size, *image_shape, device=device), layout_of(model))
    model.train()

    def passes(count: int) -> float:
        watch = Stopwatch(device)
        for _ in range(count):
            with autocast(precision, device):
                output = logits_of(model(images))
            output.float().sum().backward()
            model.zero_grad(set_to_none=True)
        return watch.seconds()

    passes(1)
    count = max(1, round(seconds / max(passes(1), 1e-6)))
    return count * batch_size * training_flops(model, traces) / passes(count)
