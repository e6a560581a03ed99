"""A part of a source's images, the same one whenever it is asked for."""

from __future__ import annotations

import torch

from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.randomness import generator


class FixedSample:
    """Images drawn from a source by a key's random numbers, in the source's order; fetched by the first that asks.

    Args:
        key: (seed, purpose).
    """

    def __init__(self, source: ImageSource, key: tuple[int | str, ...]) -> None:
        self._source, self._key = source, key
        self._taken: ImageSet | None = None

    def take(self, count: int) -> ImageSet:
        """That many of them, or all there are."""
        if self._taken is None or len(self._taken) != min(count, len(self._source)):
            drawn = torch.randperm(len(self._source), generator=generator(*self._key))
            self._taken = self._source.take(drawn[:count].sort().values)
        return self._taken
