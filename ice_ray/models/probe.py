"""A network to try things with, which show in its answers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def probe_of(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """A copy in eval mode whose batch norms are far from what they are at first, which is nearly nothing, and two
    random images (2, C, H, W).
    """
    drawn = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    images = torch.rand(2, *image_shape, generator=drawn).to(parameter)
    probe = copy.deepcopy(model).eval()
    for module in probe.modules():
        if isinstance(module, _BatchNorm):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=drawn))
    return probe, images
