"""Copies of a network to try things on, with values that show in the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.models.copies import copied


def probe_of(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """A copy in eval mode whose batch norms are drawn at random (fresh ones change nearly nothing), and two random
    images (2, C, H, W).
    """
    drawn = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    images = torch.rand(2, *image_shape, generator=drawn).to(parameter)
    probe = copied(model).eval()
    for module in probe.modules():
        if isinstance(module, _BatchNorm):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=drawn))
    return probe, images


@torch.no_grad()
def unsettled(model: nn.Module) -> nn.Module:
    """A copy in eval mode in which no channel is zero and no two are alike: per-channel factors, shifts and statistics
    are drawn at random, and so are weights that are all equal, as where training begins from zeros.
    """
    drawn = torch.Generator().manual_seed(0)
    probe = copied(model).eval()
    for module in probe.modules():
        tensors: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
        if hasattr(module, "running_mean"):
            tensors |= dict(module.named_buffers(recurse=False))
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            if tensor.numel() == max(tensor.shape, default=1):
                least = -0.5 if name.endswith(("bias", "mean")) else 0.5
                tensor.copy_(least + torch.rand(tensor.shape, generator=drawn))
            elif bool((tensor == tensor.flatten()[0]).all()):
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=drawn) / fan_in**0.5)
    return probe
