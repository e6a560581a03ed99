"""The calibration images of a step, as criteria and repairs look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ice_ray.data.batches import Batch, Shard, evaluation_batches, evaluation_indices, normalised
from ice_ray.data.images import FixedSample, ImageSet, Preprocessing
from ice_ray.models.resume import Activations, ResumePoint, chosen, reach, resume_from
from ice_ray.randomness import generator
from ice_ray.training.evaluate import evaluation_batch

_LARGEST_BATCH = 128
_JUDGING, _FEWEST = 1 / 16, 16


def judging(count: int) -> Tensor:
    """Which of so many calibration images no weights are fitted to, so that they tell what has been learnt from what
    has been learnt by heart: (count,) bool, a sixteenth; of fewer than 256 a quarter, at most 16; of three none.
    """
    most = max(round(count * _JUDGING), min(_FEWEST, count // 4))
    # Drawn, so that processes, which take every so manyth image, have about as many each.
    drawn = torch.randperm(count, generator=generator("judging"))[:most]
    return torch.zeros(count, dtype=torch.bool).index_fill(0, drawn, True)


class CalibrationImages:
    """The calibration images, fetched when they are first looked at: this process's share of them in batches, and each
    by its index among those of all processes. Passes of them begin behind what lies before the step.

    Where training images are mirrored at random, each image is there as its mirror image, too: the indices from `count`
    on, in the same order.

    Args:
        sample: of which the first `most` are taken.
        shard: which of them are this process's.
        activations: of its batches, as they are or mirrored, in a network, the step's or the dense one, at the point
            where passes of the step resume; None where they begin at the start.
        points: by layer, where passes may resume before it.
    """

    def __init__(
        self,
        sample: FixedSample,
        most: int,
        preprocessing: Preprocessing,
        shard: Shard,
        activations: Callable[[nn.Module, Iterable[Batch], bool], Sequence[Activations] | None],
        points: Mapping[str, ResumePoint] = MappingProxyType({}),
    ) -> None:
        self._sample, self._most, self._preprocessing = sample, most, preprocessing
        self._shard, self._activations, self._points = shard, activations, points
        self._point: ResumePoint | None = None
        self._moved: dict[tuple[nn.Module, bool], list[Activations]] = {}

    @property
    def rank(self) -> int:
        """This process's number, for random choices that are its own."""
        return self._shard.rank

    @property
    def count(self) -> int:
        """Images of all processes."""
        return len(self._images)

    @property
    def views(self) -> int:
        """How many of each there are: 2 where they are mirrored, else 1."""
        return 2 if self._preprocessing.flip else 1

    @cached_property
    def held(self) -> Tensor:
        """(count,) bool, which of them are this process's."""
        held = torch.zeros(self.count, dtype=torch.bool)
        held[self._own[0]] = True
        return held

    @cached_property
    def judges(self) -> Tensor:
        """(count,) bool, which of them no weights are fitted to."""
        return judging(self.count)

    def judges_of(self, batch: int) -> Tensor:
        """(n,) bool, on the CPU: the same of this process's batch of that number."""
        return self._judges[batch]

    @cached_property
    def _judges(self) -> Sequence[Tensor]:
        own, sizes = self._own
        parts: Sequence[Tensor] = self.judges[own].split([size for size in sizes if size])
        return parts

    def batches(self) -> Iterator[Batch]:
        """This process's, from the start at every call: normalised images (n, C, H, W), labels (n,), on the device."""
        yield from self._batches(self._images)

    def _batches(self, images: ImageSet) -> Iterator[Batch]:
        for batch, labels in evaluation_batches(images, self._preprocessing, self._batch_size, self._shard):
            if len(labels):
                yield batch, labels

    def _mirrored(self) -> Iterator[Batch]:
        yield from self._batches(ImageSet(self._images.images.flip(2), self._images.labels))

    def from_start(self) -> CalibrationImages:
        """The same, with passes that begin at the images."""
        return CalibrationImages(self._sample, self._most, self._preprocessing, self._shard, lambda *_: None)

    @contextmanager
    def moving(self) -> Iterator[None]:
        """While its block runs, passes may be moved on to later layers; behind it they begin at the step again."""
        try:
            yield
        finally:
            self._point = None
            self._moved.clear()

    def move_to(self, layer: str) -> None:
        """Let passes begin shortly before a layer that runs later: what runs before it changes no more."""
        self._point = self._points.get(layer, self._point)

    @contextmanager
    def resuming(self, network: nn.Module, batch: int) -> Iterator[None]:
        """While its block runs, passes of the batch of that number resume at the step; without gradients, in full
        precision.
        """
        found = self._activations_in(network, False)
        with nullcontext() if found is None else resume_from(network, found[batch]):
            yield

    @contextmanager
    def passing(self, network: nn.Module, indices: Tensor) -> Iterator[Tensor]:
        """While its block runs, passes of these images of this process's resume at the step; gives what to call the
        network with: normalised images (n, C, H, W) on the device, or, where nothing looks at them any more, something
        of their shape. Indices ascend.
        """
        (own, sizes), mirrored = self._own, indices >= self.count
        batches = [*(self._activations_in(network, False) or ())]
        if batches and mirrored.any():
            batches += self._activations_in(network, True) or ()
        rows = torch.searchsorted(own, indices % self.count) + len(own) * mirrored
        found = chosen(batches, [size for size in sizes if size] * self.views, rows) if batches else None
        if found is None:
            yield normalised(self._images.take(indices % self.count), self._preprocessing, mirrored)
            return
        with resume_from(network, found):
            yield found.output.new_zeros((len(indices), *self._images.image_shape))

    def _activations_in(self, network: nn.Module, mirrored: bool) -> Sequence[Activations] | None:
        """Of this process's batches, where passes resume now."""

        def batches() -> Iterator[Batch]:
            return self._mirrored() if mirrored else self.batches()

        point, held = self._point, self._moved.get((network, mirrored))
        if held is None:
            begun = self._activations(network, batches(), mirrored)
            if point is None or (begun and not point.follows(begun[0].resume_point)):
                return begun
            before: Sequence[Activations | None] | None = begun
            held = self._moved[network, mirrored] = []
        elif point is None or not held or held[0].resume_point == point:
            return held
        else:
            before = held
        for number, (batch, _) in enumerate(batches()):
            moved = reach(network, point, batch, before[number] if before else None)
            if number < len(held):
                held[number] = moved
            else:
                held.append(moved)
        return held

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
