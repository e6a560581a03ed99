"""Unstructured pruning: single weights are set to zero and kept there."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def maskable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear layers that train, by name; those that several share, once."""
    layers = {name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name.endswith("weight") and name.removesuffix(".weight") in layers
    }


def mask_smallest(model: nn.Module, share: float) -> None:
    """Set the smallest weights of all convolutions and linear layers together to zero, in place (Han et al. 2015).

    Among equal magnitudes those of earlier layers go first.

    Args:
        share: of all those weights that is zero afterwards, those that are zero already included; in [0, 1).
    """
    weights = list(maskable_weights(model).values())
    with torch.no_grad():
        magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
        gone = torch.zeros_like(magnitudes, dtype=torch.bool)
        gone[torch.argsort(magnitudes, stable=True)[: round(share * len(magnitudes))]] = True
        for weight, mask in zip(weights, gone.split([weight.numel() for weight in weights]), strict=True):
            weight.masked_fill_(mask.view_as(weight), 0.0)


class ZeroKeeper:
    """Keeps the weights that are zero now at zero: called after every SGD step."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = [weight.data for weight in maskable_weights(model).values()]
        self._masks: list[Tensor] = [(weight != 0).to(weight.dtype) for weight in self._weights]

    def __call__(self) -> None:
        torch._foreach_mul_(self._weights, self._masks)


def weight_norm(model: nn.Module) -> float:
    """Euclidean norm of the weights of all convolutions and linear layers together."""
    squares = [weight.detach().double().square().sum() for weight in maskable_weights(model).values()]
    return math.sqrt(float(torch.stack(squares).sum()))
