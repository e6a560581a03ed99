"""Parameters that a model's user holds fixed: `requires_grad=False`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def frozen_parameters(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)


def freeze(model: nn.Module, frozen: Collection[str]) -> nn.Module:
    """Let these parameters require no gradient and all others one, in place; returns the model."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen and parameter.is_floating_point())
    return model


def describe_frozen(frozen: Sequence[str], all_of_them: bool) -> str:
    """What frozen parameters mean for a run, for people."""
    if all_of_them:
        return (
            "all parameters of the model are frozen (requires_grad=False), as for inference: it is pruned and trained "
            "as if none were; to hold some fixed, freeze those alone"
        )
    named = ", ".join(frozen[:3]) + (f" and {len(frozen) - 3} more" if len(frozen) > 3 else "")
    return (
        f"the model holds {named} fixed (requires_grad=False): nothing trains them, and layers whose weights are among "
        "them stay whole unless prune.include names them"
    )
