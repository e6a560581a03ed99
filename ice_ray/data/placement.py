"""Where images live while they are worked on: on the device if they fit there, else where they are."""

from __future__ import annotations

import torch

from ice_ray.data.host_images import HostImages
from ice_ray.data.images import ImageSet, ImageSource

_SHARE_OF_FREE_MEMORY = 0.4


def to_device(images: ImageSource, device: torch.device) -> ImageSource:
    """The same images for batches on `device`: all of them moved there where they fit beside a network."""
    if isinstance(images, ImageSet) and images.device.type == "cpu" and size(images) > _room(device):
        return HostImages(images, device)
    return images.to(device)


def placement(images: ImageSource) -> str:
    """Where they live, for people."""
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
