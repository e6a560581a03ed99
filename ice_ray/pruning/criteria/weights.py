"""Criteria that look at weights alone, or at nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.randomness import generator


class L1Norm(Criterion):
    """Sum of the absolute weights of each filter (Li et al. 2017), the paper's choice."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: context.weight(unit).abs().sum(dim=1) for unit in context.units}


class L2Norm(Criterion):
    """Root of the sum of the squared weights of each filter."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: context.weight(unit).norm(dim=1) for unit in context.units}


class L2NormByFanIn(Criterion):
    """||w||_2 / sqrt(weights of a filter), the root mean square: what ranks filters of all layers together."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        weights = {unit.layer: context.weight(unit) for unit in context.units}
        return {layer: weight.norm(dim=1) / math.sqrt(weight.shape[1]) for layer, weight in weights.items()}


class BatchNormScale(Criterion):
    """|gamma| of the batch norm that takes the layer's output (network slimming, Liu et al. 2017): filters whose output
    is scaled down matter least.
    """

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        def scale(layer: str) -> Tensor | None:
            norm = context.norms.get(layer)
            factor = None if norm is None else getattr(context.model.get_submodule(norm), "weight", None)
            return None if factor is None else factor.detach().float().abs()

        return context.summed(scale)

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        scaled = getattr(norm, "weight", None) is not None
        return None if scaled else f"no batch norm with a scale takes the output of {unit.layer}"


class Random(Criterion):
    """A random order of the filters, drawn from the step's own generator: the control that every criterion should
    beat.
    """

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {
            unit.layer: torch.randperm(
                len(context.weight(unit)), generator=generator(*context.key, "criterion", unit.layer)
            ).float()
            for unit in context.units
        }
