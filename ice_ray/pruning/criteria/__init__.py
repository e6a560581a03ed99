"""The criteria by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from ice_ray.errors import UserError, nearest
from ice_ray.extensions import is_own, meant_as_own
from ice_ray.models.units import PrunableUnit
from ice_ray.pruning.criteria.activations import MeanActivation, Taylor
from ice_ray.pruning.criteria.base import Batch, Criterion, Reduction, ScoringContext
from ice_ray.pruning.criteria.entropy import Entropy, EntropyOfDensities
from ice_ray.pruning.criteria.own import OwnCriterion
from ice_ray.pruning.criteria.residual import Residual
from ice_ray.pruning.criteria.weights import BatchNormScale, L1Norm, L2Norm, L2NormByFanIn, Random

CRITERIA: dict[str, Callable[[], Criterion]] = {
    "l1": L1Norm,
    "l2": L2Norm,
    "l2-fan-in": L2NormByFanIn,
    "random": Random,
    "entropy": Entropy,
    "entropy-densities": EntropyOfDensities,
    "mean-activation": MeanActivation,
    "taylor": Taylor,
    "bn-scale": BatchNormScale,
    "residual": Residual,
}

__all__ = [
    "CRITERIA",
    "Batch",
    "Criterion",
    "Reduction",
    "ScoringContext",
    "check_criterion",
    "criterion_named",
]


def criterion_named(name: str) -> Criterion:
    """The criterion of that name, or the user's own `package.module:Class`.

    Raises:
        UserError: there is none.
    """
    if is_own(name):
        return OwnCriterion(name)
    if name not in CRITERIA:
        raise UserError(
            f"unknown criterion '{name}' ({nearest(name, list(CRITERIA))}; or package.module:Class{meant_as_own(name)})"
        )
    return CRITERIA[name]()


def check_criterion(
    name: str, units: Iterable[PrunableUnit], norms: Mapping[str, str | None], model: nn.Module
) -> None:
    """Raises UserError: no such criterion, or one that cannot score a unit."""
    criterion = criterion_named(name)
    for unit in units:
        norm = norms.get(unit.owners[0])
        objection = criterion.objection(unit, model.get_submodule(norm) if norm else None)
        if objection:
            raise UserError(
                f"criterion '{name}' cannot be used: {objection}; take another, or leave that layer out (prune.exclude)"
            )
