"""How long a forward pass takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from ice_ray.engine.work import Stopwatch
from ice_ray.models.layout import laid_out, layout_of
from ice_ray.training.config import Precision
from ice_ray.training.precision import autocast

WARM_UP = 5
ROUNDS = 5
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
    # Noise, and not zeros, with which a GPU needs less power and so keeps a higher clock than with images.
    noise = torch.randn(batch, *image_shape, generator=torch.Generator().manual_seed(0))
    images = laid_out(noise.to(device), layout_of(model))
    times: list[float] = []
    with torch.inference_mode(), autocast(precision, device):
        end = time.perf_counter() + seconds
        for _ in range(WARM_UP):
            _pass(model, images)
            if time.perf_counter() > end:
                break
        while len(times) < repeats and (time.perf_counter() < end or len(times) < _FEWEST):
            times.append(_pass(model, images))
    return times


def latencies_in_turn(
    models: Sequence[nn.Module],
    image_shape: tuple[int, int, int],
    batch: int,
    device: torch.device,
    precision: Precision,
    repeats: int = 100,
    seconds: float = 5.0,
) -> list[list[float]]:
    """The same for several networks that are to be compared: each has its turn in every round, so that a machine that
    is slow for a while is slow for all of them.

    Args:
        repeats: passes of each network over all rounds.
        seconds: about as many for each network; where they are over, no further round begins.
    """
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + seconds * len(models)
    for _ in range(ROUNDS):
        for model, own in zip(models, times, strict=True):
            own += latencies(model, image_shape, batch, device, precision, repeats // ROUNDS, seconds / ROUNDS)
        if time.perf_counter() > end:
            break
    return times


def _pass(model: nn.Module, images: torch.Tensor) -> float:
    watch = Stopwatch(images.device)
    model(images)
    return 1000 * watch.seconds()
