"""What takes the steps of a training, and what its learning rate is of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

Kind = Literal["sgd", "adam"]


def sgd(parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """SGD as it is; its rate is to be set."""
    own = list(parameters)
    return torch.optim.SGD(own, lr=0.0, momentum=momentum, weight_decay=weight_decay, fused=_has_fused(own))


def relative_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam whose rate is a share of each tensor's root mean square as it is now: a weight moves by so much of what the
    tensor's weights are, whatever size that is, and one of zeros stays. Its rate is to be set.
    """
    own = list(parameters)
    groups = [{"params": [each], "size": float(each.detach().square().mean().sqrt())} for each in own]
    return torch.optim.Adam(groups, lr=0.0, fused=_has_fused(own))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, of each tensor times its size where the optimizer has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("size", 1.0)


def _has_fused(parameters: list[nn.Parameter]) -> bool:
    return parameters[0].device.type in ("cuda", "cpu")
