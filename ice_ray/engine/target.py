"""One dial for people who think in results: what leaves a wanted share of the dense network."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ice_ray.engine.config import BATCH, MEASURED, Found, Quantity, Target
from ice_ray.engine.latency import latencies
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.onnx_latency import onnx_latency_share
from ice_ray.engine.work import multiply_adds
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.anatomy import is_choice
from ice_ray.training.config import PrecisionChoice
from ice_ray.training.precision import resolve

_STEPS = 1000
_LIKED = (4, 1)
"""What widths are multiples of for ONNX Runtime, which is slow with others; the second reaches further. Its blocks of 8
or 16 channels are a matter of what a layer takes (`PricedFootprint`): as a rule they cost narrow layers too much.
"""
_ROUNDS = 3
_LEAST = 1 / 8
"""Of a layer's filters: where a target leaves fewer, it is said."""
_SHOWN = 4
_LITTLE = 0.1
"""Of the multiply-adds: where the prunable layers hold less, it is said."""


def ratio_for(
    targets: Sequence[Target],
    network: DenseNetwork,
    amounts: Amounts,
    device: torch.device,
    precision: PrecisionChoice,
) -> Found:
    """The least ratio, in thousandths, that leaves no more than the targets.

    Nothing is trained. Multiply-adds and parameters are counted. Latency is the median of a batch of 64, dense and
    pruned measured in turns: in PyTorch on `device`, or in ONNX Runtime on one thread.

    Args:
        amounts: rounding and the layers with ratios of their own; its ratio is what is looked for.

    Raises:
        UserError: no ratio reaches it: what can be reached, and which layers would have to be included.
    """
    amounts.check_patterns(network.steps)
    measured = measures(targets, network, device, precision)
    for own in roundings(targets, amounts):
        by_target = [_Shares(target.quantity, network, own, measured) for target in targets]
        ratios = [shares.least(target.share) for shares, target in zip(by_target, targets, strict=True)]
        if None not in ratios:
            break
    for shares, target, ratio in zip(by_target, targets, ratios, strict=True):
        if ratio is None:
            most, reached = shares.greatest, shares.of(shares.greatest)
            raise UserError(
                f"target {target.quantity}={target.share:g} is out of reach: the greatest ratio that empties no layer"
                f" ({most / _STEPS:g}) leaves {reached:.3f}{_mend(target, network, amounts, device, precision)}"
            )
    most = max(ratio for ratio in ratios if ratio is not None)
    left = ((target.quantity, shares.of(most)) for shares, target in zip(by_target, targets, strict=True))
    # A rounding that nobody asked for is known here alone: with it go the widths.
    widths = () if own == amounts else tuple(by_target[0].widths(most).items())
    return Found(most / _STEPS, tuple(left), widths, device=str(device))


def roundings(targets: Sequence[Target], amounts: Amounts) -> list[Amounts]:
    """The amounts with what widths may be multiples of, first choice first: as asked for, or as ONNX Runtime likes."""
    if amounts.round_to is None and any(target.quantity == "onnx-latency" for target in targets):
        return [replace(amounts, round_to=multiple) for multiple in _LIKED]
    return [amounts]


def measures(
    targets: Sequence[Target], network: DenseNetwork, device: torch.device, precision: PrecisionChoice
) -> dict[Quantity, Measure]:
    """By quantity, how it is measured, of those that cannot be counted."""
    names = [target.quantity for target in targets if target.quantity in MEASURED]
    return {name: measured_share(name, network, device, precision) for name in names}


def objection_to(
    found: Found,
    targets: Sequence[Target],
    network: DenseNetwork,
    amounts: Amounts,
    device: torch.device,
    precision: PrecisionChoice,
) -> str | None:
    """What speaks against what reaches a target: it leaves layers less than an eighth of their filters, for few
    of them bear it all. In words, with the mend; None where nothing does.
    """
    own, (target, *_) = found.on(amounts), targets
    kept = {unit: unit.filters - own.removed(unit) for unit in network.units}
    gutted = [unit for unit, left in kept.items() if left < _LEAST * unit.filters]
    if not gutted:
        return None
    shown = ", ".join(f"{unit.layer} {kept[unit]} of its {unit.filters} filters" for unit in gutted[:_SHOWN])
    more = f" and {len(gutted) - _SHOWN} more likewise" if len(gutted) > _SHOWN else ""
    return (
        f"target {target.quantity}={target.share:g} leaves {shown}{more}: so few seldom recover"
        f"{_mend(target, network, amounts, device, precision)}"
    )


def small_part(network: DenseNetwork) -> str | None:
    """A line where the layers that can be pruned hold so little of the multiply-adds that it hardly pays; else None."""
    left = network.footprint.share("macs", {unit.layer: max(unit.groups, len(unit.fixed)) for unit in network.units})
    if left <= 1 - _LITTLE:
        return None
    return (
        f"the layers that can be pruned hold little: with a filter left in each, {left:.3f} of the multiply-adds would "
        "be left (inspect says why the others cannot be pruned)"
    )


def _mend(
    target: Target, network: DenseNetwork, amounts: Amounts, device: torch.device, precision: PrecisionChoice
) -> str:
    """Which layers would have to be included, and what that would bring."""
    found = []
    if (wider := network.wider()) is not None:
        found.append(f"{_include(network, wider)} takes {_added(network, wider)} too")
    if (freer := network.freer()) is not None:
        known = {unit.layer for unit in network.units}
        heads = {unit.heads for unit in freer.units if unit.layer not in known}
        options = " and ".join(
            f"prune.{name}=True" for name, is_so in (("coupled", False), ("heads", True)) if is_so in heads
        )
        found.append(f"{options} takes {_added(network, freer)} too")
    if not found:
        return "; no other layer can be pruned (inspect says why)"
    for place, larger in enumerate(each for each in (wider, freer) if each is not None):
        measured = measures([target], larger, device, precision)
        shares = _Shares(target.quantity, larger, amounts, measured)
        # To export takes seconds: the greatest ratio has to do.
        ratio = None if target.quantity == "onnx-latency" else shares.least(target.share)
        if ratio is None:
            reached = f"the greatest ratio ({shares.greatest / _STEPS:g}) leaves {shares.of(shares.greatest):.3f}"
        else:
            reached = f"ratio {ratio / _STEPS:g} leaves {shares.of(ratio):.3f}"
        found[place] += f": then {reached}"
    return "; " + "; ".join(found)


def _added(network: DenseNetwork, larger: DenseNetwork) -> str:
    """The units that one has beside another's, by name."""
    known = {unit.layer for unit in network.units}
    added = [unit.layer for unit in larger.units if unit.layer not in known]
    return ", ".join(added[:_SHOWN]) + (f" and {len(added) - _SHOWN} more" if len(added) > _SHOWN else "")


def _include(network: DenseNetwork, wider: DenseNetwork) -> str:
    """The options that choose the layers of the wider network, and no others."""
    wanted = {unit.layer for unit in wider.units}
    others = {layer for layer, reason in network.refused.items() if layer not in wanted and is_choice(reason)}
    return "prune.include '*'" if not others else "prune.include " + " ".join(_patterns(wanted, others))


def _patterns(wanted: Collection[str], others: Collection[str]) -> list[str]:
    """Names of layers, shortened to patterns of the outermost modules that hold none of the others."""
    found: dict[str, None] = {}
    for layer in sorted(wanted):
        parts = layer.split(".")
        heads = (".".join(parts[:length]) for length in range(1, len(parts)))
        free = (head for head in heads if not any(each == head or each.startswith(f"{head}.") for each in others))
        head = next(free, None)
        found["'" + (f"{head}.*" if head is not None else layer) + "'"] = None
    return list(found)


Measure = Callable[[Mapping[str, int]], float]
"""What is left of the dense network's quantity with these widths, measured."""


class _Shares:
    """What uniform ratios leave of a network.

    Args:
        measured: for the quantities that cannot be counted.

    Attributes:
        greatest: ratio, in thousandths, that empties no layer.
    """

    def __init__(
        self, quantity: Quantity, network: DenseNetwork, amounts: Amounts, measured: Mapping[Quantity, Measure]
    ) -> None:
        self._network, self._amounts = network, amounts
        self._share = measured.get(quantity) or partial(network.footprint.share, quantity)
        self._known: dict[tuple[int, ...], float] = {}
        self.greatest = _greatest(network, amounts)

    def widths(self, thousandths: int) -> dict[str, int]:
        """By layer, filters that a ratio keeps."""
        own = replace(self._amounts, ratio=thousandths / _STEPS)
        return {unit.layer: unit.filters - own.removed(unit) for unit in self._network.units}

    def of(self, thousandths: int) -> float:
        """The share that a ratio leaves."""
        widths = self.widths(thousandths)
        known = tuple(widths.values())
        if known not in self._known:
            self._known[known] = self._share(widths)
        return self._known[known]

    def least(self, share: float) -> int | None:
        """The least ratio, in thousandths, that leaves no more than this; None where not even the greatest does."""
        least, most = 0, self.greatest
        if self.of(most) > share:
            return None
        while most - least > 1:
            middle = (least + most) // 2
            if self.of(middle) <= share:
                most = middle
            else:
                least = middle
        return most


def _greatest(network: DenseNetwork, amounts: Amounts) -> int:
    """The greatest ratio, in thousandths, that empties no layer."""
    for thousandths in range(_STEPS - 1, 0, -1):
        try:
            replace(amounts, ratio=thousandths / _STEPS).check(network.steps)
        except UserError:
            continue
        return thousandths
    raise UserError("target: no uniform ratio fits this model (inspect shows its layers)")


def measured_share(quantity: Quantity, network: DenseNetwork, device: torch.device, choice: PrecisionChoice) -> Measure:
    """A function that measures what is left of a dense network's latency with given widths."""
    if quantity == "onnx-latency":
        in_runtime = onnx_latency_share(network)
        return lambda widths: in_runtime(network.build_pruned(widths, torch.device("cpu")))
    dense, precision = network.build(device), resolve(choice, device)

    def relative_latency(widths: Mapping[str, int]) -> float:
        pruned, shares = network.build_pruned(widths, device), []
        for _ in range(_ROUNDS):
            times = [
                statistics.median(latencies(each, network.image_shape, BATCH, device, precision, repeats=5))
                for each in (dense, pruned)
            ]
            shares.append(times[1] / times[0])
        return statistics.median(shares)

    return relative_latency


def macs(network: DenseNetwork, model: nn.Module) -> int:
    """Multiply-adds of the convolutions and linear layers of a form of the network, for one image."""
    return sum(multiply_adds(model, trace) for trace in network.traces)
