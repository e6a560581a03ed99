"""How much each hyperparameter mattered, by Optuna's fANOVA."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

FEWEST_TRIALS = 4


def importances(
    points: Sequence[Mapping[str, float]], values: Sequence[float], logarithmic: Collection[str] = ()
) -> dict[str, float]:
    """The share of the variance of `values` that each hyperparameter accounts for, alone and with others.

    A random forest is fitted to the points and its variance taken apart (Hutter, Hoos, Leyton-Brown 2014); the shares
    add up to 1. Empty where fewer than four points, or points and values that do not vary, tell nothing.

    Args:
        points: hyperparameters of the finished trials. One that a trial lacks had no effect there, and counts as the
            most common of the others; one that is infinite somewhere is a category.
        values: a finite figure of each.
        logarithmic: hyperparameters measured on a logarithmic scale.

    >>> grid = [{"a": a, "b": b, "c": 1.0} for a in (0.0, 1.0, 2.0) for b in (1.0, 2.0, 3.0)]
    >>> found = importances(grid, [point["a"] for point in grid])
    >>> sorted(found), found["a"] > 0.95
    (['a', 'b'], True)
    """
    usable = [(point, value) for point, value in zip(points, values, strict=True) if math.isfinite(value)]
    columns: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for point, _ in usable for name in point):
        usual = statistics.mode(point[name] for point, _ in usable if name in point)
        columns[name] = [point.get(name, usual) for point, _ in usable]
    kinds = {name: _kind(own, name in logarithmic) for name, own in columns.items() if min(own) < max(own)}
    if len(usable) < FEWEST_TRIALS or not kinds or len({value for _, value in usable}) == 1:
        return {}
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for number, (_, value) in enumerate(usable):
            params = {name: columns[name][number] for name in kinds}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=value))
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        return {name: float(share) for name, share in found.items()}
    finally:
        optuna.logging.set_verbosity(said)


def _kind(values: Sequence[float], logarithmic: bool) -> BaseDistribution:
    if math.isinf(max(values)):
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(min(values), max(values), log=logarithmic and min(values) > 0)
