"""How long a forward pass takes."""

from __future__ import annotations

import time

import torch
from torch import nn

from ice_ray.engine.cost import Stopwatch
from ice_ray.training.precision import Precision, autocast

_WARM_UP = 5
_FEWEST = 3


def latencies(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    batch: int,
    device: torch.device,
    precision: Precision,
    repeats: int = 50,
    seconds: float = 5.0,
) -> list[float]:
    """Milliseconds of each of `repeats` forward passes of a batch, after a few that do not count.

    Fewer of both, but no less than three and one, where they would take longer than `seconds` (a batch of large images
    on a CPU).
    """
    images = torch.zeros(batch, *image_shape, device=device).to(memory_format=torch.channels_last)
    times: list[float] = []
    with torch.inference_mode(), autocast(precision, device):
        end = time.perf_counter() + seconds
        for _ in range(_WARM_UP):
            _pass(model, images)
            if time.perf_counter() > end:
                break
        while len(times) < repeats and (time.perf_counter() < end or len(times) < _FEWEST):
            times.append(_pass(model, images))
    return times


def _pass(model: nn.Module, images: torch.Tensor) -> float:
    watch = Stopwatch(images.device)
    model(images)
    return 1000 * watch.seconds()
