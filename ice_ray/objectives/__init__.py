"""How a winner is chosen among finished trials: an objective a file, found by name here."""

from __future__ import annotations

from ice_ray.errors import UserError, nearest
from ice_ray.extensions import is_own, meant_as_own
from ice_ray.objectives.auto import Auto
from ice_ray.objectives.base import Candidate, Choice, Objective, Values
from ice_ray.objectives.constrained import Constrained
from ice_ray.objectives.eq2 import Eq2
from ice_ray.objectives.front import pareto_front
from ice_ray.objectives.nearly_best import NearlyBest
from ice_ray.objectives.own import Own
from ice_ray.objectives.pareto import Pareto

__all__ = ["Candidate", "Choice", "Objective", "Values", "check_objective", "objective_named", "pareto_front"]

_OBJECTIVES: dict[str, type[Objective]] = {
    "auto": Auto,
    "eq2": Eq2,
    "nearly-best": NearlyBest,
    "constrained": Constrained,
    "pareto": Pareto,
}


def objective_named(name: str, max_drop: float | None = None) -> Objective:
    """An objective by name, or the user's own as `package.module:function`, which is imported.

    Args:
        max_drop: the limit of `constrained`, in percentage points.

    Raises:
        UserError: unknown, or a limit is missing, or given to one that has none.
    """
    check_objective(name, max_drop)
    return Own(name) if is_own(name) else _OBJECTIVES[name].with_limit(name, max_drop)


def check_objective(name: str, max_drop: float | None) -> None:
    """What `objective_named` refuses, without importing anything of the user's.

    Raises:
        UserError: as there.
    """
    kind = Own if is_own(name) else _OBJECTIVES.get(name)
    if kind is None:
        raise UserError(
            f"unknown search.objective '{name}' ({nearest(name, list(_OBJECTIVES))}; or package.module:function"
            f"{meant_as_own(name)})"
        )
    kind.check_limit(name, max_drop)
