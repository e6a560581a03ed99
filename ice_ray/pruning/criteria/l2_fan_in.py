"""L2 filter norm over the root of the fan-in: comparable between layers."""

from __future__ import annotations

import math

from torch import Tensor

from ice_ray.pruning.criteria.base import Criterion, ScoringContext


class L2NormByFanIn(Criterion):
    """||w||_2 / sqrt(weights of a filter), the root mean square: what ranks filters of all layers together."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        weights = {unit.layer: context.weight(unit) for unit in context.units}
        return {layer: weight.norm(dim=1) / math.sqrt(weight.shape[1]) for layer, weight in weights.items()}
