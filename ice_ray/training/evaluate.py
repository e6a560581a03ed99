"""Counting right answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Shard, evaluation_batches
from ice_ray.data.images import ImageSource, Preprocessing
from ice_ray.models.answers import logits_of
from ice_ray.training.config import Precision
from ice_ray.training.precision import autocast

# Pixels of a batch: 128 CIFAR images, beyond which activations leave a CPU's caches; a GPU is kept busy by more.
_BATCH_PIXELS = 128 * 32 * 32
_GPU_FACTOR = 16
_SMALLEST_BATCH = 32


def evaluation_batch(image_shape: tuple[int, int, int], device: torch.device) -> int:
    """Images per batch and process."""
    _, height, width = image_shape
    pixels = _BATCH_PIXELS * (_GPU_FACTOR if device.type == "cuda" else 1)
    return max(_SMALLEST_BATCH, pixels // (height * width))


def count_correct(
    model: nn.Module,
    images: ImageSource,
    preprocessing: Preprocessing,
    precision: Precision,
    shard: Shard,
    order: Tensor | None = None,
    enough: Callable[[Tensor, int], bool] = lambda correct, seen: False,
) -> tuple[Tensor, int]:
    """How many of this shard's images the model labels right (int64 scalar on their device), of how many over all
    processes.

    The model runs in eval mode and is left in the mode it came in.

    Args:
        order: in which the images are looked at; indices on the CPU.
        enough: asked after every batch with the two numbers so far; True ends it there.
    """
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    batch_size = evaluation_batch(images.image_shape, images.device)
    seen = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode(), autocast(precision, images.device):
        for batch, labels in evaluation_batches(images, preprocessing, batch_size, shard, order):
            if len(labels):
                correct += (logits_of(model(batch)).argmax(dim=1) == labels).sum()
            seen = min(len(images), seen + batch_size * shard.world)
            if seen < len(images) and enough(correct, seen):
                break
    model.train(was_training)
    return correct, seen
