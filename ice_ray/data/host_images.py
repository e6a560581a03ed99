"""Images too many for the device: they stay in the host's memory, and batches of them are copied over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_ray.data.images import ImageSet, ImageSource


@dataclass(frozen=True)
class HostImages(ImageSource):
    """An image set on the CPU whose batches come to another device.

    Copies are made from page-locked memory and are not waited for: while the device works on a batch, the next is
    gathered.
    """

    images: ImageSet
    target: torch.device

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.image_shape

    @property
    def device(self) -> torch.device:
        return self.target

    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for pixels, labels in self.images.fetch(order, sizes):
            yield to_device(pixels, self.target), to_device(labels, self.target)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return self.images.shuffled(generator)

    def to(self, device: torch.device) -> HostImages:
        return HostImages(self.images, device)

    def fingerprint(self) -> str:
        return self.images.fingerprint()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; on a GPU the copy goes on while the caller does."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
