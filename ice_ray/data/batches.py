"""Batches of normalised images, cropped and flipped on the device with parameters per image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.randomness import generator

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Shard:
    """Which rows of every global batch a process takes: rank::world of them."""

    rank: int = 0
    world: int = 1


def training_batches(
    images: ImageSet, preprocessing: Preprocessing, batch_size: int, key: tuple[int | str, ...], shard: Shard
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """One epoch in seeded order: (images (n, 3, H, W) float32 channels_last, labels (n,), rows of the global batch).

    Order, crops and flips are drawn for the whole epoch from `key` alone, so every world size sees the same
    augmented images. A last batch with fewer than two rows per process is left out (batch norm needs two).
    """
    count = len(images)
    device = images.images.device
    order = torch.randperm(count, generator=generator(*key, "shuffle"))
    span = 2 * preprocessing.pad + 1
    drawn = torch.randint(0, span * span * 2, (count,), generator=generator(*key, "augment"))
    order, drawn = order.to(device, non_blocking=True), drawn.to(device, non_blocking=True)
    source = _padded(images.images, preprocessing.pad)
    for start in range(0, count, batch_size):
        rows = min(batch_size, count - start)
        if rows < 2 * shard.world:
            return
        mine = slice(start + shard.rank, start + rows, shard.world)
        index = order[mine]
        pixels = _crop_and_flip(source, index, drawn[mine], images.image_shape, preprocessing)
        yield _normalised(pixels, preprocessing), images.labels[index], rows


def evaluation_batches(
    images: ImageSet, preprocessing: Preprocessing, batch_size: int, shard: Shard
) -> Iterator[Batch]:
    """Every image once over all processes, nothing padded, nothing dropped, in stored order."""
    for start in range(0, len(images), batch_size * shard.world):
        mine = slice(start + shard.rank, start + batch_size * shard.world, shard.world)
        labels = images.labels[mine]
        if len(labels):
            yield _normalised(images.images[mine], preprocessing), labels


def _padded(images: Tensor, pad: int) -> Tensor:
    return torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad)) if pad else images


def _crop_and_flip(
    source: Tensor, index: Tensor, drawn: Tensor, image_shape: tuple[int, int, int], preprocessing: Preprocessing
) -> Tensor:
    """uint8 (n, H, W, 3) from the padded source, every image with an offset and a mirror of its own."""
    _, height, width = image_shape
    if not preprocessing.pad and not preprocessing.flip:
        return source[index]
    span = 2 * preprocessing.pad + 1
    top, left, mirror = drawn % span, drawn // span % span, drawn // (span * span)
    device = source.device
    rows = top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(len(index), width)
    if preprocessing.flip:
        columns = torch.where(mirror[:, None].bool(), width - 1 - columns, columns)
    columns = left[:, None] + columns
    return source[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def _normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """float32 (n, 3, H, W); the stored (n, H, W, 3) order is exactly channels_last, so nothing is copied for it."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device) * 255
    scale = 1 / (torch.tensor(preprocessing.std, device=pixels.device) * 255)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)
