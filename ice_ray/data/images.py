"""A set of labelled images, held as bytes, and what has to be done to them before a model sees them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ice_ray.randomness import generator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What a batch goes through on the device.

    Attributes:
        mean, std: per channel, for pixel values in [0, 1].
        pad: zeros added on every side before a random crop to the original size, while training. Pixels.
        flip: whether half of the training images are mirrored left to right.
        channels_last: whether a pixel's channels lie side by side in memory, as they are stored.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pad: int = 0
    flip: bool = False
    channels_last: bool = field(default=True, repr=False)  # in its repr only what changes an image

    def as_dict(self) -> dict[str, Any]:
        """What changes an image, for files."""
        return {"mean": self.mean, "std": self.std, "pad": self.pad, "flip": self.flip}


class ImageSource(ABC):
    """Labelled images of one size that are fetched to a device in batches, by index, wherever they are held."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a model takes it."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are fetched to."""

    @abstractmethod
    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive parts of `order`, fetched: uint8 images (n, H, W, 3) and int64 labels (n,) on the device.

        Args:
            order: int64 indices on the CPU.
            sizes: how many of them each part has; together all of them.
        """

    @abstractmethod
    def shuffled(self, generator: torch.Generator) -> Tensor:
        """All indices (int64, on the CPU) in an order drawn from `generator`, one that can be fetched quickly."""

    @abstractmethod
    def to(self, device: torch.device) -> ImageSource:
        """The same images, for batches on `device`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all images and labels."""

    def take(self, rows: Tensor) -> ImageSet:
        """The images of these indices (int64, on the CPU), all together on the device."""
        return ImageSet(*next(iter(self.fetch(rows, [len(rows)]))))


@dataclass(frozen=True)
class ImageSet(ImageSource):
    """Labelled images of one size, all in the memory of one device.

    Attributes:
        images: uint8, (N, H, W, 3), on any device.
        labels: int64, (N,), on the same device.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {tuple(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 ({len(self.images)},), not {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        return self.images.device

    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for part in order.to(self.device, non_blocking=True).split(list(sizes)):
            yield self.images[part], self.labels[part]

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(len(self), generator=generator)

    def to(self, device: torch.device) -> ImageSet:
        return ImageSet(self.images.to(device), self.labels.to(device))

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for tensor in (self.images, self.labels):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @classmethod
    def from_numpy(cls, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
        """Tensors over the arrays' own memory, which may be read-only: nothing here writes to images or labels."""
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(images), torch.from_numpy(labels))


class FixedSample:
    """A random sample of a source's images, in the source's order; fetched at the first call and kept.

    Args:
        key: of the random numbers: (seed, purpose).
    """

    def __init__(self, source: ImageSource, key: tuple[int | str, ...]) -> None:
        self._source, self._key = source, key
        self._taken: ImageSet | None = None

    def take(self, count: int) -> ImageSet:
        if self._taken is None or len(self._taken) != min(count, len(self._source)):
            drawn = torch.randperm(len(self._source), generator=generator(*self._key))
            self._taken = self._source.take(drawn[:count].sort().values)
        return self._taken


@dataclass(frozen=True)
class PruningData:
    """The images of one run and their roles.

    Attributes:
        train: fine-tunes, probes, calibrates.
        validation: answers the accuracy questions of the threshold and of the search.
        preprocessing: how all of them are presented to the model.
        final: what the final epochs train on, where that is not `train`.
    """

    train: ImageSource
    validation: ImageSource
    preprocessing: Preprocessing = Preprocessing()
    final: ImageSource | None = None
