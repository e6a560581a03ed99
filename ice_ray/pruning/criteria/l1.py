"""L1 filter norm (Li et al. 2017), the paper's choice."""

from __future__ import annotations

from torch import Tensor

from ice_ray.pruning.criteria.base import Criterion, ScoringContext


class L1Norm(Criterion):
    """Sum of the absolute weights of each filter."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: context.weight(unit).abs().sum(dim=1) for unit in context.units}
