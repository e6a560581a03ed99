"""Eq. 1: the bound of the learning rate sinks as the network is pruned."""

from __future__ import annotations

import math

from ice_ray.hyperparameters import IceHyperparameters


def maximum_learning_rate(hyperparameters: IceHyperparameters, unpruned_share: float, tolerance: float = 0.0) -> float:
    """Eq. 1: LR_max = LR_base - Delta / (1 + (alpha / (2(1-p) - alpha))^beta), rounded to a logarithmic grid.

    Written as LR_base - Delta x sigmoid(-beta ln(alpha / (2(1-p) - alpha))), which neither overflows nor divides
    by zero; at alpha = 2(1-p) it is the limit LR_base.

    Args:
        hyperparameters: LR_base, Delta, p and beta.
        unpruned_share: alpha, the share of the parameters that is left, in (0, 1].
        tolerance: step of the grid, 1e-3 for steps of 0.1%; 0 rounds nothing. Rounding makes nearly equal rates
            equal, so that trials can share work exactly.
    """
    h = hyperparameters
    if not 0 < unpruned_share <= 1:
        raise ValueError(f"share of unpruned parameters {unpruned_share} is outside (0, 1]")
    rest = 2 * (1 - h.midpoint_pruned_share) - unpruned_share
    if rest <= 0:
        return on_logarithmic_grid(h.base_learning_rate, tolerance)
    exponent = h.steepness * math.log(unpruned_share / rest)
    return on_logarithmic_grid(h.base_learning_rate - h.learning_rate_reduction * _sigmoid(-exponent), tolerance)


def on_logarithmic_grid(rate: float, tolerance: float) -> float:
    """The value nearest to `rate` among (1 + tolerance)^k for whole k; `rate` itself at tolerance 0."""
    if tolerance == 0:
        return rate
    step = math.log1p(tolerance)
    return math.exp(round(math.log(rate) / step) * step)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -700)) / (1 + math.exp(max(x, -700)))
