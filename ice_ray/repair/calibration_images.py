"""The calibration images of a step, as criteria and repairs look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Batch, Shard, evaluation_batches, evaluation_indices, normalised
from ice_ray.data.images import FixedSample, ImageSet, Preprocessing
from ice_ray.models.resume import Activations, chosen, resume_from
from ice_ray.training.evaluate import evaluation_batch

_LARGEST_BATCH = 128


class CalibrationImages:
    """The calibration images, fetched when they are first looked at: this process's share of them in batches, and each
    by its index among those of all processes. Passes of them begin behind what lies before the step.

    Args:
        sample: of which the first `most` are taken.
        shard: which of them are this process's.
        activations: of its batches in a network, the step's or the dense one, at the point where passes of the step
            resume; None where they begin at the start.
    """

    def __init__(
        self,
        sample: FixedSample,
        most: int,
        preprocessing: Preprocessing,
        shard: Shard,
        activations: Callable[[nn.Module, Iterable[Batch]], Sequence[Activations] | None],
    ) -> None:
        self._sample, self._most, self._preprocessing = sample, most, preprocessing
        self._shard, self._activations = shard, activations

    @property
    def rank(self) -> int:
        """This process's number, for random choices that are its own."""
        return self._shard.rank

    @property
    def count(self) -> int:
        """Images of all processes."""
        return len(self._images)

    @cached_property
    def held(self) -> Tensor:
        """(count,) bool, which of them are this process's."""
        held = torch.zeros(self.count, dtype=torch.bool)
        held[self._own[0]] = True
        return held

    def batches(self) -> Iterator[Batch]:
        """This process's, from the start at every call: normalised images (n, C, H, W), labels (n,), on the device."""
        for batch, labels in evaluation_batches(self._images, self._preprocessing, self._batch_size, self._shard):
            if len(labels):
                yield batch, labels

    @contextmanager
    def resuming(self, network: nn.Module, batch: int) -> Iterator[None]:
        """While its block runs, passes of the batch of that number resume at the step; without gradients, in full
        precision.
        """
        found = self._activations(network, self.batches())
        with nullcontext() if found is None else resume_from(network, found[batch]):
            yield

    @contextmanager
    def passing(self, network: nn.Module, indices: Tensor) -> Iterator[Tensor]:
        """While its block runs, passes of these images of this process's resume at the step; gives what to call the
        network with: normalised images (n, C, H, W) on the device, or, where nothing looks at them any more, something
        of their shape. Indices ascend.
        """
        batches, (own, sizes) = self._activations(network, self.batches()), self._own
        rows = torch.searchsorted(own, indices)
        found = chosen(batches, [size for size in sizes if size], rows) if batches else None
        if found is None:
            yield normalised(self._images.take(indices), self._preprocessing)
            return
        with resume_from(network, found):
            yield found.output.new_zeros((len(indices), *self._images.image_shape))

    @property
    def _images(self) -> ImageSet:
        return self._sample.take(self._most)

    @cached_property
    def _own(self) -> tuple[Tensor, list[int]]:
        """Indices of this process's, in the order in which they come, and how many of them each batch has."""
        return evaluation_indices(self.count, self._batch_size, self._shard)

    @property
    def _batch_size(self) -> int:
        """Of each process; of even sizes: a last batch of a few images would have no statistics worth the name."""
        images, world = self._images, self._shard.world
        largest = min(_LARGEST_BATCH, evaluation_batch(images.image_shape, images.device))
        batches = math.ceil(len(images) / (largest * world))
        return math.ceil(len(images) / (batches * world))
