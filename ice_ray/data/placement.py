"""Where images are held while a process works on them: on the device if they fit there, else in host memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    def dtype(self) -> torch.dtype:
        return self.images.dtype

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
    return "read for every pass"


def size(images: ImageSet) -> int:
    """Bytes of the pixels."""
    return images.images.nbytes


def free_memory() -> float:
    """Bytes of this machine's, or this container's, memory that processes may still ask for."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # no Linux: half of all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    for folder, limit, used in _CONTAINER_LIMITS:
        try:
            room = int((folder / limit).read_text()) - int((folder / used).read_text())
            cached = next(
                int(line.split()[1])
                for line in (folder / "memory.stat").read_text().splitlines()
                if line.startswith(("inactive_file ", "total_inactive_file "))
            )
        except (OSError, ValueError, StopIteration):  # no such files, or no limit
            continue
        free = min(free, room + cached)
    return free


# Of control groups, versions 2 and 1: what a container may use and what it does use, files in the cache included.
_CONTAINER_LIMITS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _room(device: torch.device) -> float:
    if device.type != "cuda":
        return float("inf")
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    # A process with a part of a GPU may use no more than that part of its memory.
    own = total * torch.cuda.get_per_process_memory_fraction(index) - torch.cuda.memory_reserved(index)
    return _SHARE_OF_FREE_MEMORY * min(free, own)
