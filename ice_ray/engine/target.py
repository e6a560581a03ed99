"""One dial for people who think in results: the uniform ratio that leaves a wanted share of the dense network."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from ice_ray.engine.cost import multiply_adds
from ice_ray.engine.latency import latencies
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts
from ice_ray.training.precision import PrecisionChoice, resolve

Quantity = Literal["macs", "params", "latency"]
_STEPS = 1000
_LATENCY_BATCH = 64
_ROUNDS = 3


@dataclass(frozen=True)
class Target:
    """What is to be left: a share of the dense network's multiply-adds, parameters or latency, inside (0, 1)."""

    quantity: Quantity
    share: float


@dataclass(frozen=True)
class Found:
    """The ratio that reaches a target, and the share it really leaves."""

    ratio: float
    share: float


def parse_target(text: str) -> Target:
    """A target as the command line has it.

    Raises:
        UserError: it is none.

    >>> parse_target("macs=0.5")
    Target(quantity='macs', share=0.5)
    """
    quantity, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if quantity not in get_args(Quantity) or not 0 < value < 1:
        raise UserError(f"--target '{text}' must be macs=, params= or latency= with a share inside (0, 1), as macs=0.5")
    return Target(quantity, value)  # type: ignore[arg-type]


def ratio_for(
    target: Target, network: DenseNetwork, amounts: Amounts, device: torch.device, precision: PrecisionChoice
) -> Found:
    """The least ratio, in thousandths, that leaves no more than the target, found by removing filters from copies.

    Nothing is trained. Latency is the median of a batch of 64 on `device`, dense and pruned measured in turns.

    Args:
        amounts: rounding and the layers with ratios of their own; its ratio is what is looked for.

    Raises:
        UserError: no ratio reaches it.
    """
    amounts.check_patterns(network.steps)
    where = device if target.quantity == "latency" else torch.device("cpu")
    measure = _measure(target.quantity, network, where, precision)

    def share(thousandths: int) -> float:
        own = replace(amounts, ratio=thousandths / _STEPS)
        widths = {unit.layer: unit.filters - own.removed(unit) for unit in network.units}
        return measure(network.build_pruned(widths, where))

    most = _greatest(network, amounts)
    least, reached = 0, share(most)
    if reached > target.share:
        raise UserError(
            f"--target {target.quantity}={target.share:g} is out of reach: the greatest ratio that empties no layer"
            f" ({most / _STEPS:g}) leaves {reached:.3f}"
        )
    while most - least > 1:
        middle = (least + most) // 2
        found = share(middle)
        if found <= target.share:
            most, reached = middle, found
        else:
            least = middle
    return Found(most / _STEPS, reached)


def _greatest(network: DenseNetwork, amounts: Amounts) -> int:
    """The greatest ratio, in thousandths, that empties no layer."""
    for thousandths in range(_STEPS - 1, 0, -1):
        try:
            replace(amounts, ratio=thousandths / _STEPS).check(network.steps)
        except UserError:
            continue
        return thousandths
    raise UserError("--target: no uniform ratio fits this model; look at it with jobs/ice_inspect.py")


def _measure(
    quantity: Quantity, network: DenseNetwork, device: torch.device, choice: PrecisionChoice
) -> Callable[[nn.Module], float]:
    """The share that a pruned copy leaves of the dense network's quantity."""
    dense = network.build(device)
    if quantity == "params":
        return lambda model: network.unpruned_share(model, "parameters")
    if quantity == "macs":
        return lambda model: macs(network, model) / macs(network, dense)

    precision = resolve(choice, device)

    def relative_latency(model: nn.Module) -> float:
        shares = []
        for _ in range(_ROUNDS):
            times = [
                statistics.median(latencies(each, network.image_shape, _LATENCY_BATCH, device, precision, repeats=5))
                for each in (dense, model)
            ]
            shares.append(times[1] / times[0])
        return statistics.median(shares)

    return relative_latency


def macs(network: DenseNetwork, model: nn.Module) -> int:
    """Multiply-adds of the convolutions and linear layers of a form of the network, for one image."""
    return sum(multiply_adds(model, trace) for trace in network.traces)
