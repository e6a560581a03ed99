"""First-order Taylor expansion (Molchanov et al. 2017): how much the loss would change without the filter."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_ray.pruning.criteria.base import Reduction
from ice_ray.pruning.criteria.streaming import Statistic, StreamingCriterion, average


class Taylor(StreamingCriterion):
    """Mean over the images of |spatial mean of activation x gradient|, the gradient of each image's cross entropy.

    Activations count where they are positive, as behind a ReLU: there activation x gradient is the same before and
    after it.
    """

    passes = 3.0
    needs_gradients = True

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Taylor(filters, device)


class _Taylor(Statistic):
    def __init__(self, filters: int, device: torch.device) -> None:
        self._total = torch.zeros(filters, dtype=torch.float64, device=device)
        self._images = 0

    def update(self, maps: Tensor, gradients: Tensor | None) -> None:
        assert gradients is not None
        self._total += (maps.double() * gradients.double()).mean(dim=2).abs().sum(dim=0)
        self._images += len(maps)

    def scores(self, reduction: Reduction) -> Tensor:
        return average(self._total, self._images, reduction)
