"""What a batch norm in eval mode does to a layer's output: a factor and a constant for each filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_SILENT = 1e-4
"""Of the greatest factor that a norm has learned: filters with less are heard by nobody behind it."""


@dataclass(frozen=True)
class ChannelNorm:
    """y -> scale x y + shift.

    Attributes:
        scale, shift: (filters,).
        heard: (filters,) bool, which filters can be heard behind the norm: those that its factors do not silence.
        module: the norm; None where there is none, or one that is not known, and nothing is done.
    """

    scale: Tensor
    shift: Tensor
    heard: Tensor
    module: _BatchNorm | None

    @property
    def is_affine(self) -> bool:
        """Whether the norm does nothing else: some have an activation built in."""
        return self.module is None or type(self.module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)

    def of(self, rows: Tensor) -> Tensor:
        """(rows, filters) behind the norm."""
        return rows * self.scale + self.shift


def norm_behind(model: nn.Module, layer: str, norm: str | None) -> ChannelNorm:
    """The norm that directly follows a layer, by its path, where it has statistics of its own."""
    weight = model.get_parameter(f"{layer}.weight")
    one, module = torch.ones(len(weight), device=weight.device), model.get_submodule(norm) if norm is not None else None
    if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
        return ChannelNorm(one, torch.zeros_like(one), one.bool(), None)
    factor = one if module.weight is None else module.weight.detach()
    scale = (module.running_var + module.eps).rsqrt() * factor
    shift = (0 * one if module.bias is None else module.bias.detach()) - module.running_mean * scale
    return ChannelNorm(scale, shift, factor.abs() > _SILENT * factor.abs().max(), module)


def take_up(norm: ChannelNorm, layer: nn.Conv2d | nn.Linear, constant: Tensor) -> None:
    """Let layer and norm add a constant (filters,), where one of them can: in place."""
    if norm.module is not None:
        assert norm.module.running_mean is not None
        bias = 0.0 if layer.bias is None else layer.bias.detach()
        added = constant if norm.module.bias is None else constant - norm.module.bias.detach()
        mean = bias - added / torch.where(norm.heard, norm.scale, 1.0)
        norm.module.running_mean.copy_(torch.where(norm.heard, mean, norm.module.running_mean))
    elif layer.bias is not None:
        layer.bias.data.copy_(constant)
