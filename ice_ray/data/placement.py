"""Where images are held while a process works on them: on the device if they fit there, else in host memory."""

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
            yield tensor_to_device(pixels, self.target), tensor_to_device(labels, self.target)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        return self.images.shuffled(generator)

    def to(self, device: torch.device) -> HostImages:
        return HostImages(self.images, device)

    def fingerprint(self) -> str:
        return self.images.fingerprint()


def tensor_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; to a GPU it is copied asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


_SHARE_OF_FREE_MEMORY = 0.4


def to_device(images: ImageSource, device: torch.device) -> ImageSource:
    """The same images for batches on `device`; all of them are moved there where they fit beside a network."""
    if isinstance(images, ImageSet) and images.device.type == "cpu" and size(images) > _room(device):
        return HostImages(images, device)
    return images.to(device)


def placement(images: ImageSource) -> str:
    """Where they are held, for people."""
    if isinstance(images, ImageSet):
        return f"on the device ({size(images) / 1e6:,.0f} MB)"
    if isinstance(images, HostImages):
        return f"in the host's memory ({size(images.images) / 1e6:,.0f} MB)"
    return "decoded for every pass"


def size(images: ImageSet) -> int:
    """Bytes of the pixels."""
    return images.images.numel()


def _room(device: torch.device) -> float:
    if device.type != "cuda":
        return float("inf")
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    # A process with a part of a GPU may use no more than that part of its memory.
    own = total * torch.cuda.get_per_process_memory_fraction(index) - torch.cuda.memory_reserved(index)
    return _SHARE_OF_FREE_MEMORY * min(free, own)
