"""Whether a network can still be trained once filters are gone: what runs in training alone is in no trace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ice_ray.models.copies import copied
from ice_ray.models.layout import laid_out, layout_of
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.removal import shrink_to

_READ_IN_TRAINING = "its filters are read by what runs in training alone, such as an auxiliary head"


def untrainable_layers(
    model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]
) -> dict[str, str]:
    """The layers without half of whose filters a pass in training fails, and why.

    Args:
        model: any; it is left as it is.
    """
    if _trains(model, image_shape, units) or not _trains(model, image_shape, ()):
        return {}
    return {unit.layer: _READ_IN_TRAINING for unit in units if not _trains(model, image_shape, [unit])}


def _trains(model: nn.Module, image_shape: tuple[int, int, int], units: Sequence[PrunableUnit]) -> bool:
    own = copied(model)
    images = torch.zeros(2, *image_shape)
    try:
        if units:
            shrink_to(own, image_shape, {unit.layer: unit.filters // unit.groups // 2 * unit.groups for unit in units})
        with torch.no_grad():
            own.train()(laid_out(images, layout_of(own)))
    except Exception:  # the network is anybody's
        return False
    return True
