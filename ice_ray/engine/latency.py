"""How long a forward pass takes."""

from __future__ import annotations

import torch
from torch import nn

from ice_ray.engine.cost import Stopwatch
from ice_ray.training.precision import Precision, autocast

_WARM_UP = 5


def latencies(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    batch: int,
    device: torch.device,
    precision: Precision,
    repeats: int = 50,
) -> list[float]:
    """Milliseconds of each of `repeats` forward passes of a batch, after a few that do not count."""
    images = torch.zeros(batch, *image_shape, device=device).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode(), autocast(precision, device):
        for repeat in range(repeats + _WARM_UP):
            watch = Stopwatch(device)
            model(images)
            if repeat >= _WARM_UP:
                times.append(1000 * watch.seconds())
    return times
