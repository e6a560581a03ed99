"""Entropy of activations (Luo and Wu 2017): filters that say the same of every image matter least."""

from __future__ import annotations

import torch
from torch import Tensor

from ice_ray.pruning.criteria.activations import Statistic, StreamingCriterion
from ice_ray.pruning.criteria.base import Reduction

BINS = 20
_FINE = 4096


class Entropy(StreamingCriterion):
    """Shannon entropy (nats) of each filter's spatial means over the images: 20 bins from the least to the greatest."""

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Histogram(filters, device, densities=False)


class EntropyOfDensities(StreamingCriterion):
    """The authors' program: the same sum over bin DENSITIES (probability over bin width), which changes with scale."""

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Histogram(filters, device, densities=True)


class _Histogram(Statistic):
    """Counts in fine bins over [0, 2^k), k growing with the greatest value; at the end gathered into the 20 bins.

    One pass cannot know the range beforehand. A fine bin is at most 1/2048 of the greatest value wide: where a filter's
    values span a hundredth of their size or less, the 20 bins are no wider than the fine ones and come out coarser.
    """

    def __init__(self, filters: int, device: torch.device, densities: bool) -> None:
        self._densities = densities
        self._counts = torch.zeros(filters, _FINE, dtype=torch.int64, device=device)
        self._power = torch.full((filters,), -60, dtype=torch.int64, device=device)
        self._least = torch.full((filters,), torch.inf, dtype=torch.float64, device=device)
        self._greatest = torch.full((filters,), -torch.inf, dtype=torch.float64, device=device)

    def update(self, maps: Tensor, gradients: Tensor | None) -> None:
        means = maps.double().mean(dim=2).T  # (filters, n)
        self._least = torch.minimum(self._least, means.amin(dim=1))
        self._greatest = torch.maximum(self._greatest, means.amax(dim=1))
        self._grow(_power_above(self._greatest))
        position = (means / self._width()[:, None]).long().clamp(0, _FINE - 1)
        self._counts.scatter_add_(1, position, torch.ones_like(position))

    def scores(self, reduction: Reduction) -> Tensor:
        self._greatest = reduction.max(self._greatest)
        self._least = -reduction.max(-self._least)
        self._grow(_power_above(self._greatest))
        counts = reduction.sum(self._counts)
        span = self._greatest - self._least
        constant = span == 0
        centres = (torch.arange(_FINE, device=span.device) + 0.5) * self._width()[:, None]
        relative = (centres - self._least[:, None]) / torch.where(constant, 1.0, span)[:, None]
        position = (relative * BINS).long().clamp(0, BINS - 1)
        position[constant] = BINS // 2
        binned = torch.zeros(len(counts), BINS, dtype=torch.int64, device=span.device).scatter_add_(1, position, counts)
        values = binned / binned.sum(dim=1, keepdim=True)
        if self._densities:
            # numpy gives a constant's histogram the range of value - 1/2 to value + 1/2
            values = values / (torch.where(constant, 1.0, span) / BINS)[:, None]
        entropies: Tensor = torch.special.entr(values).sum(dim=1)
        return entropies

    def _width(self) -> Tensor:
        return torch.exp2(self._power.double()) / _FINE

    def _grow(self, power: Tensor) -> None:
        """Widen the fine bins to a range of [0, 2^power) where that is greater, merging the counts."""
        power = torch.maximum(power, self._power)
        shift = (power - self._power).clamp(max=62)
        position = torch.arange(_FINE, device=shift.device)[None, :] >> shift[:, None]
        self._counts = torch.zeros_like(self._counts).scatter_add_(1, position, self._counts)
        self._power = power


def _power_above(values: Tensor) -> Tensor:
    """The least k with value < 2^k; values are at least 0."""
    return torch.frexp(values.clamp(min=2.0**-60))[1].long()
