"""How much each hyperparameter mattered, by Optuna's fANOVA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

FEWEST_TRIALS = 4


def importances(
    points: Sequence[Mapping[str, float]], values: Sequence[float], logarithmic: frozenset[str] = frozenset()
) -> dict[str, float]:
    """The share of the variance of `values` that each hyperparameter accounts for, alone and with others.

    A random forest is fitted to the points and its variance taken apart (Hutter, Hoos, Leyton-Brown 2014); the shares
    add up to 1. Empty where fewer than four points, or points and values that do not vary, tell nothing.

    Args:
        points: hyperparameters of the finished trials.
        values: a finite figure of each.
        logarithmic: hyperparameters measured on a logarithmic scale.

    >>> grid = [{"a": a, "b": b, "c": 1.0} for a in (0.0, 1.0, 2.0) for b in (1.0, 2.0, 3.0)]
    >>> found = importances(grid, [point["a"] for point in grid])
    >>> sorted(found), found["a"] > 0.95
    (['a', 'b'], True)
    """
    usable = [(point, value) for point, value in zip(points, values, strict=True) if math.isfinite(value)]
    boxes: dict[str, BaseDistribution] = {}
    for name in usable[0][0] if usable else ():
        own = [point[name] for point, _ in usable]
        if min(own) < max(own):
            boxes[name] = FloatDistribution(min(own), max(own), log=name in logarithmic and min(own) > 0)
    if len(usable) < FEWEST_TRIALS or not boxes or min(v for _, v in usable) == max(v for _, v in usable):
        return {}
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for point, value in usable:
            params = {name: point[name] for name in boxes}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=boxes, value=value))
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        return {name: float(share) for name, share in found.items()}
    finally:
        optuna.logging.set_verbosity(said)
