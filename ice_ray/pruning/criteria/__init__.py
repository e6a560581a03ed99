"""The criteria by name, a file each."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_ray.errors import UserError, nearest
from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.pruning.criteria.l1 import L1Norm
from ice_ray.pruning.criteria.random import Random

CRITERIA: dict[str, type[Criterion]] = {"l1": L1Norm, "random": Random}

__all__ = ["CRITERIA", "Criterion", "ScoringContext", "criterion_named", "lowest"]


def criterion_named(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        UserError: there is none.
    """
    if name not in CRITERIA:
        raise UserError(f"unknown criterion '{name}' ({nearest(name, list(CRITERIA))})")
    return CRITERIA[name]()


def lowest(scores: Tensor, count: int) -> tuple[int, ...]:
    """Indices (sorted) of the `count` lowest scores; among equals the earlier filter goes first."""
    order = torch.argsort(scores, stable=True)
    return tuple(sorted(int(index) for index in order[:count]))
