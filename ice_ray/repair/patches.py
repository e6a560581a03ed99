"""What a layer reads and what it gives, at sampled places: the rows of a least-squares problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.randomness import generator

_FEW_POSITIONS, _MANY_POSITIONS, _NARROW = 16, 64, 1024


def positions_per_image(inputs: int) -> int:
    """Output positions of an image at which rows are taken at most, for a layer with so many inputs a filter: enough
    for several rows an input with some hundred images.
    """
    return _FEW_POSITIONS if inputs <= _NARROW else _MANY_POSITIONS


@dataclass(frozen=True)
class Positions:
    """Where in every image's output rows are taken.

    Attributes:
        of_image: (images, places) int64, flat indices of output positions.
    """

    of_image: Tensor

    @classmethod
    def drawn(
        cls, images: int, positions: int, most: int, key: tuple[int | str, ...], device: torch.device
    ) -> Positions:
        """All positions, or `most` different ones an image, by the key's random numbers."""
        if positions <= most:
            return cls(torch.arange(positions, device=device).expand(images, positions))
        drawn = torch.rand(images, positions, generator=generator(*key)).topk(most).indices
        return cls(drawn.to(device))


def input_rows(layer: nn.Module, given: Tensor, output_size: Sequence[int], positions: Positions) -> Tensor:
    """(groups, rows, weights of a filter): what each sampled output of a layer is a weighted sum of."""
    if isinstance(layer, nn.Linear):
        flat = given.reshape(len(given), -1, given.shape[-1])
        return flat.gather(1, positions.of_image[:, :, None].expand(-1, -1, flat.shape[-1])).flatten(0, 1)[None]
    assert isinstance(layer, nn.Conv2d)
    padded = _padded(layer, given)
    device = given.device
    rows, columns = positions.of_image // output_size[-1], positions.of_image % output_size[-1]
    within = [
        torch.arange(size, device=device) * dilation
        for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    down = rows[:, :, None] * layer.stride[0] + within[0]  # (images, places, kernel height)
    across = columns[:, :, None] * layer.stride[1] + within[1]
    image = torch.arange(len(given), device=device)[:, None, None, None]
    patches = padded.movedim(1, -1)[image, down[:, :, :, None], across[:, :, None, :]]  # (n, places, kh, kw, C)
    patches = patches.movedim(-1, 2).flatten(0, 1)  # (rows, C, kh, kw): the order of a filter's weights
    by_group: Tensor = patches.unflatten(1, (layer.groups, -1)).flatten(2)
    return by_group.movedim(1, 0)


def output_rows(layer: nn.Module, output: Tensor, positions: Positions) -> Tensor:
    """(rows, filters) of a layer's output at the sampled places."""
    channels_last = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    flat = channels_last.reshape(len(output), -1, channels_last.shape[-1])
    return flat.gather(1, positions.of_image[:, :, None].expand(-1, -1, flat.shape[-1])).flatten(0, 1)


def positions_of(layer: nn.Module, output: Tensor) -> int:
    """Output positions of one image."""
    return output[0].numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]


def _padded(layer: nn.Conv2d, given: Tensor) -> Tensor:
    """As the layer pads."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    sides = list(layer._reversed_padding_repeated_twice)
    return F.pad(given, sides, mode=mode) if any(sides) else given
