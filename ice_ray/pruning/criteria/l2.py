"""L2 filter norm."""

from __future__ import annotations

from torch import Tensor

from ice_ray.pruning.criteria.base import Criterion, ScoringContext


class L2Norm(Criterion):
    """Root of the sum of the squared weights of each filter."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: context.weight(unit).norm(dim=1) for unit in context.units}
