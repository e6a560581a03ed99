"""A set of labelled images, held as uint8 or float32, and what has to be done to them before a model sees them."""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.errors import UserError, require
from ice_ray.randomness import generator
from ice_ray.wording import counted

DTYPES = (torch.uint8, torch.float32)
"""Of stored images: uint8 is normalised by `Preprocessing`, float32 is taken as it comes."""


@dataclass(frozen=True)
class Preprocessing:
    """What a batch goes through on the device.

    Attributes:
        mean, std: one value a channel, in [0, 1] and (0, 1], for uint8 pixels scaled to [0, 1]. [default: ImageNet's]
            float32 images are normalised already and are taken as they come: they go with neither.
        pad: zeros added on every side before a random crop to the original size, while training. Pixels; zeros of the
            stored images: black in uint8, the mean colour in normalised float32.
        flip: whether half of the training images are mirrored left to right.
        channels_last: whether a pixel's channels lie side by side in memory, as they are stored.

    Raises:
        UserError: `mean` and `std` are no numbers of that range, differ in length or one is there without the other, or
            `pad` is below 0.

    >>> Preprocessing(mean=(0.1307,), std=(0.3081,))  # MNIST: one channel
    Preprocessing(mean=(0.1307,), std=(0.3081,), pad=0, flip=False)
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: int = 0
    flip: bool = False
    channels_last: bool = field(default=True, repr=False)  # in its repr only what changes an image

    def __post_init__(self) -> None:
        require(self, "pad", self.pad >= 0, "must be at least 0")
        if self.mean is None and self.std is None:
            return
        if self.mean is None or self.std is None:
            raise UserError(f"{'std' if self.mean is None else 'mean'} is given alone: give both mean and std")
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if len(mean) != len(std):
            raise UserError(f"mean has {_values(mean)} and std has {_values(std)}: give each one a channel")
        require(self, "mean", all(0 <= value <= 1 for value in mean), "must be in [0, 1], of pixels in [0, 1]")
        require(self, "std", all(0 < value <= 1 for value in std), "must be in (0, 1], of pixels in [0, 1]")

    def as_dict(self) -> dict[str, Any]:
        """What changes an image, for files."""
        return {"mean": self.mean, "std": self.std, "pad": self.pad, "flip": self.flip}

    def for_images(self, channels: int, dtype: torch.dtype) -> Preprocessing:
        """The same with the mean and std that images of so many channels get: none of float32, which are normalised
        already; of uint8 ImageNet's, where none are given.

        Raises:
            UserError: mean and std are given and the images are float32, or uint8 of another number of channels.
        """
        if dtype == torch.float32:
            if self.mean:
                raise UserError(
                    "mean and std are for uint8 images, and these are floats, which are taken as they come: leave both "
                    "out where the images are normalised, else normalise them, or give them as uint8"
                )
            return dataclasses.replace(self, mean=(), std=())
        mean, std = self.of_uint8
        if len(mean) != channels:
            one = counted(channels, "channel")
            raise UserError(
                f"mean and std have {_values(mean)}, and the uint8 images have {one}: give mean and std one value "
                "a channel, those that the model was trained with"
            )
        return dataclasses.replace(self, mean=mean, std=std)

    @property
    def of_uint8(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std that uint8 images are normalised with."""
        if self.mean is None or self.std is None:
            return IMAGENET_MEAN, IMAGENET_STD
        return self.mean, self.std


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in given)
    except (TypeError, ValueError) as error:  # a number alone, or no numbers
        raise UserError(
            f"{name}={given!r:.80} must be numbers, one a channel: {name}=(0.5,) for one channel"
        ) from error


def _values(given: tuple[float, ...]) -> str:
    return counted(len(given), "value")


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
    def dtype(self) -> torch.dtype:
        """Of the images: uint8, or float32 that a model takes as they are."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where batches are fetched to."""

    @abstractmethod
    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Consecutive parts of `order`, fetched: images (n, H, W, C) and int64 labels (n,) on the device.

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
        images: uint8 or float32, (N, H, W, C), on any device: the channels come last, as they are stored.
        labels: int64, (N,), on the same device.

    Raises:
        UserError: images or labels of another type or shape.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype not in DTYPES or self.images.ndim != 4 or 0 in self.images.shape[1:]:
            raise UserError(
                f"images must be uint8 or float32 (N, H, W, C), not {_described(self.images)}; "
                "from (N, C, H, W): images.permute(0, 2, 3, 1)"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise UserError(f"labels must be int64 ({len(self.images)},), not {_described(self.labels)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.images.shape
        return channels, height, width

    @property
    def dtype(self) -> torch.dtype:
        return self.images.dtype

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
    def from_numpy(cls, images: NDArray[np.uint8 | np.float32], labels: NDArray[np.int64]) -> ImageSet:
        """Tensors over the arrays' own memory, which may be read-only: nothing here writes to images or labels."""
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(images), torch.from_numpy(labels))


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


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

    Raises:
        UserError: mean and std of `preprocessing` do not go with the images.
    """

    train: ImageSource
    validation: ImageSource
    preprocessing: Preprocessing = Preprocessing()
    final: ImageSource | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            if not isinstance(getattr(self, name), ImageSource):
                kind = type(getattr(self, name)).__name__
                raise UserError(f"data.{name} is of type {kind}: give an ImageSet, or use ice_ray.given_data")
        roles = [role for role in (self.train, self.validation, self.final) if role is not None]
        stored = torch.uint8 if any(role.dtype == torch.uint8 for role in roles) else torch.float32
        try:
            own = self.preprocessing.for_images(self.train.image_shape[0], stored)
        except UserError as error:
            raise UserError(f"preprocessing: {error}") from error
        object.__setattr__(self, "preprocessing", own)
