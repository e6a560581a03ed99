"""The error that is left after the layers behind have been refitted: backward elimination, least increase first."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.repair.normal_equations import NormalEquations

_RIDGE = 1e-6


class Residual(Criterion):
    """Scores are places in an order: 0 goes first.

    From all filters, the one goes whose absence raises least the error with which the layers that read them, refitted,
    reproduce what they gave in the dense network; then the next, given that the first is gone. A layer of a step is
    looked at with the others of the step whole.
    """

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: self._order(context, unit) for unit in context.units}

    def problems(self, units: Iterable[PrunableUnit]) -> Collection[str]:
        return dict.fromkeys(reader for unit in units for reader in unit.consumers)

    def _order(self, context: ScoringContext, unit: PrunableUnit) -> Tensor:
        filters = len(context.weight(unit))
        problems = [context.problems[reader] for reader in unit.consumers if reader in context.problems]
        eliminations = [Elimination(problem.whole, filters) for problem in problems]
        if not eliminations:
            return context.weight(unit).abs().sum(dim=1)  # nothing to refit: by L1 norm
        order = torch.zeros(filters)
        for position in range(filters):
            rises = torch.stack([elimination.rises() for elimination in eliminations]).sum(dim=0)
            goes = int(rises.argmin())
            order[goes] = position
            for elimination in eliminations:
                elimination.remove(goes)
        return order


class Elimination:
    """One reader's refit, from which filters are taken one by one; all solutions kept up to date.

    With G the inputs' products and W the best weights, to do without the inputs c costs W_c' (G^-1_cc)^-1 W_c; what is
    left of G^-1 and W follows by a block of the inverse (as in optimal brain surgery).

    Args:
        filters: how many channels there are to take; each has as many neighbouring inputs, within its group.
    """

    def __init__(self, equations: NormalEquations, filters: int) -> None:
        xx, xy, yy = equations.moments()
        groups, inputs, _ = xx.shape
        self._per_group = filters // groups
        self._size = inputs // self._per_group
        self._inverse = torch.linalg.inv(equations.damped(_RIDGE))
        self._weights = self._inverse @ xy
        self._scale = yy.sum().clamp_min(torch.finfo(torch.float64).tiny)
        self._gone = torch.zeros(filters, dtype=torch.bool, device=xx.device)

    def rises(self) -> Tensor:
        """(filters,) how much each filter's going raises the error, over the targets' mean square; infinite where it
        is gone.
        """
        blocks = self._blocks()
        own = self._weights.unflatten(1, (self._per_group, self._size)).flatten(0, 1)
        rises: Tensor = (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2)) / self._scale
        return rises.masked_fill(self._gone, torch.inf)

    def remove(self, which: int) -> None:
        """A filter goes."""
        group, channel = divmod(which, self._per_group)
        position = slice(channel * self._size, (channel + 1) * self._size)
        inverse, weights = self._inverse[group], self._weights[group]
        across = torch.linalg.solve(inverse[position, position], inverse[position])  # (size, inputs)
        weights -= inverse[:, position] @ torch.linalg.solve(inverse[position, position], weights[position])
        inverse -= inverse[:, position] @ across
        # So that its block can still be solved with.
        inverse[position], inverse[:, position], weights[position] = 0, 0, 0
        inverse[position, position] = torch.eye(self._size, dtype=inverse.dtype, device=inverse.device)
        self._gone[which] = True

    def _blocks(self) -> Tensor:
        """(filters, size, size): each filter's own block of the inverse."""
        grid = self._inverse.unflatten(2, (self._per_group, self._size)).unflatten(1, (self._per_group, self._size))
        blocks: Tensor = grid.diagonal(dim1=1, dim2=3)  # (groups, size, size, channels)
        return blocks.movedim(-1, 1).flatten(0, 1)
