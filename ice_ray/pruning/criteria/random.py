"""Random filters: the control that every criterion should beat."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.randomness import generator


class Random(Criterion):
    """A random order of the filters, drawn from the step's own generator."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {
            unit.layer: torch.randperm(
                len(context.weight(unit)), generator=generator(*context.key, "criterion", unit.layer)
            ).float()
            for unit in context.units
        }
