"""Calibration images one by one, for who trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Shard, evaluation_indices, normalised
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.models.partial_forward import Activations, chosen, resume_from


class CalibrationSample:
    """Images by their places among those of all processes (`CalibrationImages`).

    Args:
        images: of all processes.
        batch_size, shard: of the batches in which this process is given its own.
        activations: of these batches in a network, at the point where passes may resume; None where that is the start.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        batch_size: int,
        shard: Shard,
        activations: Callable[[nn.Module], Sequence[Activations] | None],
    ) -> None:
        self._images, self._preprocessing, self._activations = images, preprocessing, activations
        indices, sizes = evaluation_indices(len(images), batch_size, shard)
        self._sizes = [size for size in sizes if size]  # those of no image are no batches
        self.count, self.held = len(images), torch.zeros(len(images), dtype=torch.bool)
        self.held[indices] = True
        self._row = torch.zeros(len(images), dtype=torch.int64)
        self._row[indices] = torch.arange(len(indices))

    @contextmanager
    def passing(self, network: nn.Module, indices: Tensor) -> Iterator[Tensor]:
        """While its block runs, passes of these images begin where the batches stand; gives what to begin with."""
        batches = self._activations(network)
        own = chosen(batches, self._sizes, self._row[indices]) if batches else None
        if own is None:
            yield normalised(self._images.take(indices), self._preprocessing)
            return
        with resume_from(network, own):
            yield own.output.new_zeros((len(indices), *self._images.image_shape))
