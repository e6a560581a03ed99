"""Batch-norm scale (Liu et al. 2017, network slimming): filters whose output is scaled down matter least."""

from __future__ import annotations

from torch import Tensor, nn

from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.pruning.units import PrunableUnit


class BatchNormScale(Criterion):
    """|gamma| of the batch norm that takes the layer's output."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {
            unit.layer: context.model.get_parameter(f"{context.norms[unit.layer]}.weight").detach().float().abs()
            for unit in context.units
        }

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        scaled = getattr(norm, "weight", None) is not None
        return None if scaled else f"no batch norm with a scale takes the output of {unit.layer}"
