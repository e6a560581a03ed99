"""Mean activation: filters that hardly fire matter least."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_ray.pruning.criteria.base import Reduction
from ice_ray.pruning.criteria.streaming import Statistic, StreamingCriterion, average


class MeanActivation(StreamingCriterion):
    """Mean over the images of the spatial mean of the activations."""

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Mean(filters, device)


class _Mean(Statistic):
    def __init__(self, filters: int, device: torch.device) -> None:
        self._total = torch.zeros(filters, dtype=torch.float64, device=device)
        self._images = 0

    def update(self, maps: Tensor, gradients: Tensor | None) -> None:
        self._total += maps.double().mean(dim=2).sum(dim=0)
        self._images += len(maps)

    def scores(self, reduction: Reduction) -> Tensor:
        return average(self._total, self._images, reduction)
