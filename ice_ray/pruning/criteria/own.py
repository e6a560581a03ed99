"""The user's own criterion, `package.module:Class`: asked as any other, its answers looked at."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ice_ray.errors import OwnCodeError, UserError
from ice_ray.extensions import check_takes, load_own
from ice_ray.guard import guarded
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria.base import Criterion, ScoringContext

_FORM = "a criterion is a class of ice_ray.pruning.criteria.Criterion, or a function without arguments that gives one"


class OwnCriterion(Criterion):
    """Stands for the user's, and refuses scores that are none.

    Raises:
        UserError: the name stands for something else, which is not called where that can be seen before.
        OwnCodeError: it raises, or returns anything but a score for every filter.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        function: Any = load_own(name, "criterion")
        if inspect.isclass(function) and not issubclass(function, Criterion):
            raise UserError(f"criterion '{name}' is a class, not an ice_ray Criterion; {_FORM}")
        check_takes(function, name, "criterion", (), _FORM)
        with guarded(name, "criterion"):
            own = function()
        if not isinstance(own, Criterion):
            raise UserError(f"criterion '{name}' gives {type(own).__name__}, not an ice_ray Criterion; {_FORM}")
        self._own, self.passes = own, own.passes

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        with guarded(self._name, "criterion"):
            scores: Any = self._own.score(context)
        if not isinstance(scores, dict):
            raise self._refused(f"returned {type(scores).__name__}, not a dict of scores by layer")
        for unit in context.units:
            self._check(unit.layer, len(context.weight(unit)), scores.get(unit.layer))
        return {unit.layer: scores[unit.layer].detach() for unit in context.units}

    def problems(self, units: Iterable[PrunableUnit]) -> Collection[str]:
        with guarded(self._name, "criterion"):
            return self._own.problems(units)

    def objection(self, unit: PrunableUnit, norm: nn.Module | None) -> str | None:
        with guarded(self._name, "criterion"):
            return self._own.objection(unit, norm)

    def _check(self, layer: str, filters: int, scores: Any) -> None:
        if not isinstance(scores, Tensor):
            found = "nothing" if scores is None else type(scores).__name__
            raise self._refused(f"returned {found} for layer {layer}, not a tensor")
        if scores.shape != (filters,):
            raise self._refused(
                f"returned scores of shape {tuple(scores.shape)} for layer {layer}, which has {filters} filters"
            )
        if scores.is_complex() or scores.dtype == torch.bool:
            raise self._refused(f"returned {scores.dtype} scores for layer {layer}, which have no order")
        if bool(scores.isnan().any()):
            raise self._refused(f"returned scores for layer {layer} that are not numbers (NaN)")

    def _refused(self, what: str) -> OwnCodeError:
        return OwnCodeError(f"criterion '{self._name}' {what}; score gives {{layer: a tensor of (filters,)}}")
