"""The error that is left after the layers behind have been refitted: backward elimination, least increase first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria.base import Criterion, ScoringContext
from ice_ray.repair.normal_equations import NormalEquations

_RIDGE = 1e-6
_MANY = 128
"""Inputs from which on it is worth while to leave out those that have gone."""


class Residual(Criterion):
    """Scores are places in an order: 0 goes first.

    From all filters, the one goes whose absence raises least the error with which the layers that read them, refitted,
    reproduce what they gave in the dense network; then the next, given that the first is gone. Where filters are not
    all worth as many multiply-adds, because one takes along what another does not, the rise for each of these counts.
    A layer of a step is looked at with the others of the step whole.
    """

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return {unit.layer: self._order(context, unit) for unit in context.units}

    def problems(self, units: Iterable[PrunableUnit]) -> Collection[str]:
        return dict.fromkeys(reader for unit in units for reader in unit.consumers)

    def _order(self, context: ScoringContext, unit: PrunableUnit) -> Tensor:
        freed = context.freed[unit.layer]
        filters, going = len(freed), int(freed.count_nonzero())
        alike = bool((freed == freed[0]).all())
        eliminations = [
            Elimination(context.problems[reader].fitted, columns, filters)
            for reader, columns in context.columns[unit.layer].items()
            if reader in context.problems
        ]
        if not eliminations:
            return context.weight(unit).abs().sum(dim=1)  # nothing to refit: by L1 norm
        order = torch.full((filters,), float(filters))
        for position in range(going):
            rises = torch.stack([elimination.rises() for elimination in eliminations]).sum(dim=0)
            goes = int((rises if alike else rises / freed.to(rises.device)).argmin())
            order[goes] = position
            for elimination in eliminations:
                elimination.remove(goes)
        return order


class Elimination:
    """One reader's refit, from which filters are taken one by one; all solutions kept up to date.

    With G the inputs' products and W the best weights, to do without the inputs c costs W_c' (G^-1_cc)^-1 W_c; what is
    left of G^-1 and W follows by a block of the inverse (as in optimal brain surgery).

    Args:
        columns: (channels,) int64, which filter each of the reader's input channels comes from, all groups together; -1
            for those that never go. Each is as many neighbouring inputs of a group.
        filters: how many there are to take.
    """

    def __init__(self, equations: NormalEquations, columns: Tensor, filters: int) -> None:
        xx, xy, yy = equations.moments()
        groups, inputs, _ = xx.shape
        per_group = len(columns) // groups
        area = inputs // per_group
        self._blocks: dict[int, list[_Block]] = {}  # by filter
        for group, own in enumerate(columns.view(groups, per_group).tolist()):
            places: dict[int, list[int]] = {}
            for channel, which in enumerate(own):
                places.setdefault(which, []).extend(range(channel * area, (channel + 1) * area))
            for which, found in places.items():
                if which >= 0:
                    self._blocks.setdefault(which, []).append(_Block(group, found))
        self._alike = _alike(self._blocks, xx.device)
        self._inverse = torch.linalg.inv(equations.damped(_RIDGE))
        self._weights = self._inverse @ xy
        self._inputs, self._left = inputs, torch.arange(inputs, device=xx.device)  # of all inputs, those still here
        self._scale = yy.sum().clamp_min(torch.finfo(torch.float64).tiny)
        self._gone = torch.zeros(filters, dtype=torch.bool, device=xx.device)

    @property
    def weights(self) -> Tensor:
        """(groups, inputs, outputs) that now fit best; zero for inputs that are gone."""
        groups, _, outputs = self._weights.shape
        found: Tensor = self._weights.new_zeros(groups, self._inputs, outputs)
        return found.index_copy_(1, self._left, self._weights)

    def rises(self) -> Tensor:
        """(filters,) how much each filter's going raises the error, over the targets' mean square; infinite where it
        is gone.
        """
        rises = torch.zeros(len(self._gone), dtype=torch.float64, device=self._gone.device)
        for which, groups, inputs in self._alike:
            own = self._weights[groups[:, None], inputs]
            blocks = self._inverse[groups[:, None, None], inputs[:, :, None], inputs[:, None, :]]
            rises.index_add_(0, which, (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2)) / self._scale)
        return rises.masked_fill(self._gone, torch.inf)

    def remove(self, which: int) -> None:
        """A filter goes."""
        for block in self._blocks.get(which, ()):
            position = block.position
            inverse, weights = self._inverse[block.group], self._weights[block.group]
            own = inverse[position][:, position]
            across = torch.linalg.solve(own, inverse[position])  # (size, inputs)
            weights -= inverse[:, position] @ torch.linalg.solve(own, weights[position])
            inverse -= inverse[:, position] @ across
            # So that its block can still be solved with.
            inverse[position], inverse[:, position], weights[position] = 0, 0, 0
            places = torch.tensor(block.inputs, device=inverse.device)
            inverse[places, places] = 1.0
        self._gone[which] = True
        self._shrink()

    def _shrink(self) -> None:
        """Leave out the inputs that have gone, once they are most of them: all that follows takes less time."""
        groups, inputs, _ = self._inverse.shape
        if groups > 1 or inputs < _MANY:
            return
        gone = self._gone.tolist()
        lost = [index for which, blocks in self._blocks.items() if gone[which] for index in blocks[0].inputs]
        if 2 * len(lost) <= inputs:
            return
        left = sorted(set(range(inputs)) - set(lost))
        own = torch.tensor(left, dtype=torch.int64, device=self._inverse.device)
        self._inverse, self._weights = self._inverse[:, own][:, :, own].contiguous(), self._weights[:, own].contiguous()
        self._left = self._left[own]
        place = {before: now for now, before in enumerate(left)}
        self._blocks = {
            which: [_Block(0, [place[each] for each in block.inputs]) for block in blocks]
            for which, blocks in self._blocks.items()
            if not gone[which]
        }
        self._alike = _alike(self._blocks, self._inverse.device)


@dataclass(frozen=True)
class _Block:
    """A filter's inputs within one group of a reader, ascending."""

    group: int
    inputs: list[int]

    @property
    def position(self) -> slice | list[int]:
        """To index with: neighbours can be looked at without a copy."""
        first, last = self.inputs[0], self.inputs[-1]
        return slice(first, last + 1) if last - first + 1 == len(self.inputs) else self.inputs


def _alike(blocks: Mapping[int, Sequence[_Block]], device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    """By size of their blocks, which are solved together: filters (n,), groups (n,) and inputs (n, size)."""
    sizes: dict[int, list[tuple[int, _Block]]] = {}
    for which in sorted(blocks):
        for block in blocks[which]:
            sizes.setdefault(len(block.inputs), []).append((which, block))
    return [
        (
            torch.tensor([which for which, _ in found], device=device),
            torch.tensor([block.group for _, block in found], device=device),
            torch.tensor([block.inputs for _, block in found], device=device),
        )
        for found in sizes.values()
    ]
