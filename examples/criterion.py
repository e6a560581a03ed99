"""A criterion of your own: the geometric median (He et al. 2019), filters that others can best stand in for go first.

python jobs/ice_prune.py --criterion examples.criterion:GeometricMedian
"""

import torch
from torch import Tensor

from ice_ray.pruning.criteria import Criterion, ScoringContext


class GeometricMedian(Criterion):
    """Sum of a filter's distances to all others of its layer."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        weights = {unit.layer: context.weight(unit) for unit in context.units}
        return {layer: torch.cdist(weight, weight).sum(dim=1) for layer, weight in weights.items()}
