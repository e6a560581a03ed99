"""What reaches a target at the least loss: a width for each layer."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from functools import reduce

import torch

from ice_ray.data.images import PruningData
from ice_ray.data.placement import to_device
from ice_ray.engine.config import MEASURED, Found, Quantity, Rung, Target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.onnx_layers import PricedFootprint
from ice_ray.engine.target import Measure, measures, objection_to, ratio_for, roundings
from ice_ray.engine.width_losses import WidthLosses, width_losses
from ice_ray.errors import UserError
from ice_ray.export_formats import need_onnx
from ice_ray.pruning.allocation import Costs, Curve, allocate, allowed
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.footprint import Footprint
from ice_ray.training.config import PrecisionChoice

_MEASUREMENTS = 6
"""Of a latency at other multiply-adds than the least, until the widths are found."""
_NARROW = 0.005
"""Of the dense multiply-adds: an interval in which no latency is looked for."""
_NOISE = 0.985
"""Another measurement of the same network gives up to a hundredth more: so much of a latency is aimed at."""


def find(
    rungs: Sequence[Rung],
    network: DenseNetwork,
    amounts: Amounts,
    device: torch.device,
    precision: PrecisionChoice,
    images: tuple[PruningData, int] | None = None,
) -> tuple[Found, str | None]:
    """What reaches the target, and what speaks against it, if anything does: of a ladder, the last rung, with those
    above.

    Args:
        images: to allocate by, and the run's seed; without them one ratio holds for all layers.

    Raises:
        UserError: a target is out of reach, and says what can be reached; or a rung takes nothing from the one above.
    """
    if any(target.quantity == "onnx-latency" for target in rungs[0]):
        need_onnx("target onnx-latency")
    if images is None:
        ratios = [ratio_for(targets, network, amounts, device, precision) for targets in rungs]
        found = reduce(lambda above, own: dataclasses.replace(own, above=above), ratios)
    else:
        data, seed = images
        on_device = dataclasses.replace(data, train=to_device(data.train, device))
        found = allocation_for(rungs, network, amounts, on_device, seed, device, precision)
    for targets, rung in zip(rungs, found.rungs, strict=True):
        _check_below(targets, rung, network, amounts)
    return found, objection_to(found, rungs[-1], network, amounts, device, precision)


def _check_below(targets: Rung, rung: Found, network: DenseNetwork, amounts: Amounts) -> None:
    """Raises UserError: a rung takes nothing from the one above, or gives back what that has taken."""
    own = rung.on_rung(amounts)
    gone = [own.removed_now(unit) for unit in network.units]
    if rung.above is not None and (min(gone) < 0 or not any(gone)):
        raise UserError(
            f"target {' '.join(map(str, targets))} takes no filter that the rung above it has left: leave one of them "
            "out, or put them further apart"
        )


def allocation_for(
    rungs: Sequence[Rung],
    network: DenseNetwork,
    amounts: Amounts,
    data: PruningData,
    seed: int,
    device: torch.device,
    precision: PrecisionChoice,
) -> Found:
    """The widths that lose least of those that reach all targets (`width_losses`, `allocate`); nothing is trained.

    Of a ladder each rung is chosen from what the one above has left, by the same losses, which are measured once. For a
    latency, measured, the multiply-adds are sought with which the widths that lose least reach it; for that in ONNX
    Runtime, the sum of what the layers take alone (`PricedFootprint`).

    Args:
        amounts: rounding, and layers with ratios of their own, which keep them.
        data: whose training images are looked at, without their labels; they lie on the device.

    Raises:
        UserError: a target is out of reach; says what can be reached.
    """
    amounts.check_patterns(network.steps)
    losses, found = width_losses(network, data, seed, device), None
    measured = measures(rungs[0], network, device, precision)
    for targets in rungs:
        found = _rung(targets, network, amounts, losses, measured, device, precision, found)
    assert found is not None
    return found


def _rung(
    targets: Rung,
    network: DenseNetwork,
    amounts: Amounts,
    losses: WidthLosses,
    measured: Mapping[Quantity, Measure],
    device: torch.device,
    precision: PrecisionChoice,
    above: Found | None,
) -> Found:
    widest = dict(above.widths) if above is not None else {}
    for own, narrowest in itertools.product(roundings(targets, amounts), (False, True)):
        curves = [allowed(curve, own, narrowest, widest.get(curve.unit.layer)) for curve in losses.curves]
        search = _Search(network, curves, targets, measured)
        if (widths := search.widths()) is not None:
            break
    else:
        return dataclasses.replace(ratio_for(targets, network, amounts, device, precision), above=above)
    gone = sum(unit.filters - widths[unit.layer] for unit in network.units)
    return Found(
        ratio=round(gone / sum(unit.filters for unit in network.units), 3),
        shares=tuple((target.quantity, search.share(target, widths)) for target in targets),
        widths=tuple(widths.items()),
        losses=tuple((curve.unit.layer, curve.losses[widths[curve.unit.layer]]) for curve in losses.curves),
        uniform_loss=_uniform_loss(losses.curves, targets, network.footprint, amounts),
        seconds=losses.cost.wall_seconds,
        flops=losses.cost.flops,
        device=str(device),
        above=above,
    )


class _Search:
    """Args: measured: of the quantities that cannot be counted, a function of widths."""

    def __init__(
        self,
        network: DenseNetwork,
        curves: Sequence[Curve],
        targets: Sequence[Target],
        measured: Mapping[Quantity, Measure],
    ) -> None:
        self._curves, self._targets, self._measured = curves, targets, measured
        self._steered = "onnx-latency" if "onnx-latency" in measured else "macs"
        self._footprint: Costs = network.footprint
        if self._steered != "macs":
            self._footprint = PricedFootprint(network, {curve.unit.layer: curve.widths for curve in curves})
        self._known: dict[tuple[Quantity, tuple[int, ...]], float] = {}

    def widths(self) -> dict[str, int] | None:
        """None where not even the narrowest reach the targets."""
        budgets: dict[str, float] = {
            each.quantity: each.share for each in self._targets if each.quantity not in self._measured
        }
        if not self._measured:
            return allocate(self._curves, self._footprint, budgets)
        narrowest = {curve.unit.layer: curve.widths[0] for curve in self._curves}
        if (excess := self._excess(narrowest)) > 1:
            return None
        reaching = [narrowest]
        low = self._footprint.share(self._steered, narrowest), excess
        high = 1.0, max(1 / (_NOISE * each.share) for each in self._targets if each.quantity in self._measured)
        is_creeping = False
        for _ in range(_MEASUREMENTS):
            if high[0] - low[0] < _NARROW:
                break
            aim = _between(low, high, is_creeping)
            steered = {self._steered: min(aim, budgets.get(self._steered, aim))}
            widths = allocate(self._curves, self._footprint, budgets | steered)
            if widths is None:  # the other budgets leave less than that
                low = aim, low[1]
            elif (excess := self._excess(widths)) <= 1:
                reaching.append(widths)
                low = aim, excess
            else:
                is_creeping = excess * _NOISE <= 1  # a line through what is so near would stay there
                high = self._footprint.share(self._steered, widths), excess
        return min(reaching, key=lambda each: _loss(self._curves, each))

    def _excess(self, widths: Mapping[str, int]) -> float:
        """What is left of the measured quantities over what is aimed at: at most 1 where all of them are reached."""
        measured = (each for each in self._targets if each.quantity in self._measured)
        return max(self.share(each, widths) / (_NOISE * each.share) for each in measured)

    def share(self, target: Target, widths: Mapping[str, int]) -> float:
        """What is left of a target's quantity; measured, the larger of two shares, where the first reaches the target:
        the least of many measurements flatters.
        """
        if target.quantity not in self._measured:
            return self._footprint.share(target.quantity, widths)
        known = target.quantity, tuple(widths.values())
        if known not in self._known:  # another time it would be another
            measure = self._measured[target.quantity]
            first = measure(widths)
            self._known[known] = first if first > target.share else max(first, measure(widths))
        return self._known[known]


def _between(low: tuple[float, float], high: tuple[float, float], in_the_middle: bool) -> float:
    """Where, on a straight line through two points (multiply-adds, excess), the excess is 1, at neither of them; or in
    the middle between them.
    """
    (least, below), (most, above) = low, high
    share = 0.5 if in_the_middle else (1 - below) / (above - below)
    return least + (most - least) * min(max(share, 0.1), 0.9)


def _loss(curves: Sequence[Curve], widths: Mapping[str, int]) -> float:
    return sum(curve.losses[widths[curve.unit.layer]] for curve in curves)


def _uniform_loss(
    curves: Sequence[Curve], targets: Sequence[Target], footprint: Footprint, amounts: Amounts
) -> float | None:
    """Of the least ratio for all layers that reaches the targets; None where none does, or where they are measured."""
    if any(target.quantity in MEASURED for target in targets):
        return None
    for thousandths in range(1, 1000):
        own = dataclasses.replace(amounts, ratio=thousandths / 1000)
        widths = {curve.unit.layer: curve.unit.filters - own.removed(curve.unit) for curve in curves}
        if not all(widths.values()):
            return None
        if all(footprint.share(target.quantity, widths) <= target.share for target in targets):
            return _loss(curves, widths)
    return None
