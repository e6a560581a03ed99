"""Batches of normalised images, cropped and flipped on the device with parameters per image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_ray.data.images import ImageSet, ImageSource, Preprocessing
from ice_ray.errors import UserError
from ice_ray.randomness import generator
from ice_ray.wording import counted

Batch = tuple[Tensor, Tensor]
_FEWEST = 2  # images of a process in a batch: batch norm needs them


@dataclass(frozen=True)
class Shard:
    """Which rows of every global batch a process takes: rank::world of them."""

    rank: int = 0
    world: int = 1


def check_epoch(count: int, processes: int, mend: str = "give it more") -> None:
    """Whether an epoch of so many training images has an SGD step (`training_batches`).

    Args:
        mend: what to do about it.

    Raises:
        UserError: it has none, and so would train nothing.
    """
    if count < _FEWEST * processes:
        images = f"{counted(count, 'training image')} for {counted(processes, 'worker')}"
        raise UserError(f"{images}: an epoch would have no step, as each takes {_FEWEST} images a worker; {mend}")


def training_batches(
    images: ImageSource, preprocessing: Preprocessing, batch_size: int, key: tuple[int | str, ...], shard: Shard
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """One epoch in seeded order: (images (n, C, H, W) float32, labels (n,), rows of the global batch).

    Order, crops and flips are drawn for the whole epoch from `key` alone, so every world size sees the same
    augmented images. A last batch with fewer than two rows per process is left out (batch norm needs two).
    """
    count = len(images)
    order = images.shuffled(generator(*key, "shuffle"))
    span = 2 * preprocessing.pad + 1
    drawn = torch.randint(0, span * span * 2, (count,), generator=generator(*key, "augment"))
    rows = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    if rows[-1] < _FEWEST * shard.world:
        rows.pop()
    indices, sizes = _own_indices(rows, shard)
    draws = drawn[indices].to(images.device, non_blocking=True).split(sizes)
    normalise = _Normalisation(preprocessing, images.device)
    for (pixels, labels), draw, of_all in zip(images.fetch(order[indices], sizes), draws, rows, strict=True):
        yield normalise(_crop_and_flip(pixels, draw, preprocessing)), labels, of_all


def evaluation_batches(
    images: ImageSource, preprocessing: Preprocessing, batch_size: int, shard: Shard, order: Tensor | None = None
) -> Iterator[Batch]:
    """Every image once over all processes, nothing padded, nothing dropped.

    A process that has no row of the last batch gets an empty one, so that all processes see as many batches.

    Args:
        order: int64 indices on the CPU, else the stored order.
    """
    indices, sizes = evaluation_indices(len(images), batch_size, shard)
    normalise = _Normalisation(preprocessing, images.device)
    for pixels, labels in images.fetch(indices if order is None else order[indices], sizes):
        yield normalise(pixels), labels


def evaluation_indices(count: int, batch_size: int, shard: Shard) -> tuple[Tensor, list[int]]:
    """Of so many images the places (int64) of those that a process is given to evaluate, in the order in which they
    come, and how many of them are in each batch.
    """
    whole = batch_size * shard.world
    return _own_indices([min(whole, count - start) for start in range(0, count, whole)], shard)


def normalised(images: ImageSet, preprocessing: Preprocessing, mirrored: Tensor | None = None) -> Tensor:
    """All of them in one batch, (n, C, H, W) float32.

    Args:
        mirrored: (n,) bool, on the CPU, which of them left to right. [default: none]
    """
    pixels = images.images
    if mirrored is not None and mirrored.any():
        pixels = torch.where(mirrored.to(pixels.device)[:, None, None, None], pixels.flip(2), pixels)
    return _Normalisation(preprocessing, images.device)(pixels)


def _own_indices(rows: list[int], shard: Shard) -> tuple[Tensor, list[int]]:
    """The indices, in the epoch's order, of this process's images, and how many of them each batch has."""
    starts = [0, *itertools.accumulate(rows)][:-1]
    own = [
        torch.arange(start + shard.rank, start + count, shard.world)
        if shard.rank < count
        else torch.empty(0, dtype=torch.int64)
        for start, count in zip(starts, rows, strict=True)
    ]
    return torch.cat(own) if own else torch.empty(0, dtype=torch.int64), [len(part) for part in own]


def _crop_and_flip(pixels: Tensor, drawn: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(n, H, W, C) as stored, every image moved and mirrored as was drawn for it, zeros beyond its border."""
    if not preprocessing.pad and not preprocessing.flip:
        return pixels
    count, height, width, _ = pixels.shape
    pad = preprocessing.pad
    span = 2 * pad + 1
    top, left, mirror = drawn % span, drawn // span % span, drawn // (span * span)
    device = pixels.device
    rows = top[:, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    if preprocessing.flip:
        columns = torch.where(mirror[:, None].bool(), width - 1 - columns, columns)
    columns = left[:, None] + columns
    padded = torch.nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad)) if pad else pixels
    return padded[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]


class _Normalisation:
    """(n, H, W, C), uint8 or float32, to float32 (n, C, H, W); the stored order is exactly channels_last, so nothing is
    copied where that is wanted. float32 keeps its values.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        mean, std = preprocessing.of_uint8
        self._mean = (torch.tensor(mean) * 255).to(device)
        self._channels_last = preprocessing.channels_last
        self._scale = (1 / (torch.tensor(std) * 255)).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        values = pixels if pixels.dtype == torch.float32 else (pixels.float() - self._mean) * self._scale
        images = values.permute(0, 3, 1, 2)
        return images if self._channels_last else images.contiguous()
