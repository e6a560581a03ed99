"""Calibration images one by one, for who trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Shard, evaluation_places, normalised
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.models.passes import Standing, chosen, going_on


class Drawn:
    """Images by their places among those of all processes (`Draws`).

    Args:
        images: of all processes.
        batch_size, shard: of the batches in which this process is given its own.
        standing: where these batches stand in a network at the place where passes may begin; None where at the start.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocessing: Preprocessing,
        batch_size: int,
        shard: Shard,
        standing: Callable[[nn.Module], Sequence[Standing] | None],
    ) -> None:
        self._images, self._preprocessing, self._standing = images, preprocessing, standing
        places, sizes = evaluation_places(len(images), batch_size, shard)
        self._sizes = [size for size in sizes if size]  # those of no image are no batches
        self.count, self.held = len(images), torch.zeros(len(images), dtype=torch.bool)
        self.held[places] = True
        self._row = torch.zeros(len(images), dtype=torch.int64)
        self._row[places] = torch.arange(len(places))

    @contextmanager
    def passing(self, network: nn.Module, places: Tensor) -> Iterator[Tensor]:
        """While its block runs, passes of these images begin where the batches stand; gives what to begin with."""
        batches = self._standing(network)
        own = chosen(batches, self._sizes, self._row[places]) if batches else None
        if own is None:
            yield normalised(self._images.take(places), self._preprocessing)
            return
        with going_on(network, own):
            yield own.output.new_zeros((len(places), *self._images.image_shape))
