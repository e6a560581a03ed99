"""A set of labelled images, held as bytes, and what has to be done to them before a model sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What a batch goes through on the device.

    Attributes:
        mean, std: per channel, for pixel values in [0, 1].
        pad: zeros added on every side before a random crop to the original size, while training. Pixels.
        flip: whether half of the training images are mirrored left to right.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pad: int = 0
    flip: bool = False


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size.

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
        """(C, H, W), as a model takes it."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    def to(self, device: torch.device) -> ImageSet:
        """The same images on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    @classmethod
    def from_numpy(cls, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
        """Tensors over the arrays' own memory, which may be read-only: nothing here writes to images or labels."""
        import warnings

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(images), torch.from_numpy(labels))


@dataclass(frozen=True)
class PruningData:
    """The images of one run and their roles.

    Attributes:
        train: fine-tunes, probes, calibrates.
        decide: answers the accuracy questions of the threshold and of the search.
        preprocessing: how all of them are presented to the model.
        final: what the final epochs train on, where that is not `train`.
    """

    train: ImageSet
    decide: ImageSet
    preprocessing: Preprocessing = Preprocessing()
    final: ImageSet | None = None
