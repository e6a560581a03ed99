"""What reaches a target at the least loss: a width for each layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ice_ray.data.images import PruningData
from ice_ray.data.placement import to_device
from ice_ray.engine.config import Found, Target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import measured_share, objection_to, ratio_for
from ice_ray.engine.width_losses import width_losses
from ice_ray.pruning.allocation import Curve, allocate, allowed
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.footprint import Footprint
from ice_ray.training.config import PrecisionChoice

_HALVINGS = 7
"""Of the interval of multiply-adds in which a latency is looked for: to less than a hundredth of the dense ones."""


def find(
    targets: Sequence[Target],
    network: DenseNetwork,
    amounts: Amounts,
    device: torch.device,
    precision: PrecisionChoice,
    images: tuple[PruningData, int] | None = None,
) -> tuple[Found, str | None]:
    """What reaches the targets, and what speaks against it, if anything does.

    Args:
        images: to allocate by, and the run's seed; without them one ratio holds for all layers.

    Raises:
        UserError: a target is out of reach; says what can be reached.
    """
    if images is None:
        found = ratio_for(targets, network, amounts, device, precision)
    else:
        data, seed = images
        on_device = dataclasses.replace(data, train=to_device(data.train, device))
        found = allocation_for(targets, network, amounts, on_device, seed, device, precision)
    return found, objection_to(found, targets, network, amounts, device, precision)


def allocation_for(
    targets: Sequence[Target],
    network: DenseNetwork,
    amounts: Amounts,
    data: PruningData,
    seed: int,
    device: torch.device,
    precision: PrecisionChoice,
) -> Found:
    """The widths that lose least of those that reach all targets (`width_losses`, `allocate`); nothing is trained.

    For a latency, measured, the multiply-adds are sought with which the widths that lose least reach it.

    Args:
        amounts: rounding, and layers with ratios of their own, which keep them.
        data: whose training images are looked at, without their labels; they lie on the device.

    Raises:
        UserError: a target is out of reach; says what can be reached.
    """
    amounts.check_patterns(network.steps)
    losses = width_losses(network, data, seed, device)
    for narrowest in (False, True):
        curves = [allowed(curve, amounts, narrowest) for curve in losses.curves]
        search = _Search(network, curves, targets, device, precision)
        if (widths := search.widths()) is not None:
            break
    else:
        return ratio_for(targets, network, amounts, device, precision)
    gone = sum(unit.filters - widths[unit.layer] for unit in network.units)
    return Found(
        ratio=round(gone / sum(unit.filters for unit in network.units), 3),
        shares=tuple((target.quantity, search.share(target, widths)) for target in targets),
        widths=tuple(widths.items()),
        losses=tuple((curve.unit.layer, curve.losses[widths[curve.unit.layer]]) for curve in losses.curves),
        uniform_loss=_uniform_loss(losses.curves, targets, network.footprint, amounts),
        seconds=losses.cost.wall_seconds,
        flops=losses.cost.flops,
    )


@dataclass(frozen=True)
class _Search:
    network: DenseNetwork
    curves: Sequence[Curve]
    targets: Sequence[Target]
    device: torch.device
    precision: PrecisionChoice
    measured: dict[tuple[tuple[str, int], ...], float] = field(default_factory=dict)

    def widths(self) -> dict[str, int] | None:
        """None where not even the narrowest reach the targets."""
        budgets: dict[str, float] = {each.quantity: each.share for each in self.targets if each.quantity != "latency"}
        latency = next((each for each in self.targets if each.quantity == "latency"), None)
        if latency is None:
            return allocate(self.curves, self.network.footprint, budgets)
        narrowest = {curve.unit.layer: curve.widths[0] for curve in self.curves}
        if self.share(latency, narrowest) > latency.share:
            return None
        best, least, most = narrowest, self.network.footprint.share("macs", narrowest), budgets.get("macs", 1.0)
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            widths = allocate(self.curves, self.network.footprint, budgets | {"macs": middle})
            if widths is not None and self.share(latency, widths) <= latency.share:
                best, least = widths, middle
            elif widths is None:
                least = middle
            else:
                most = middle
        return best

    def share(self, target: Target, widths: Mapping[str, int]) -> float:
        """What is left of a target's quantity."""
        if target.quantity != "latency":
            return self.network.footprint.share(target.quantity, widths)
        known = tuple(widths.items())
        if known not in self.measured:  # another time it would be another
            measure = measured_share("latency", self.network, self.device, self.precision)
            self.measured[known] = measure(self.network.build_pruned(widths, self.device))
        return self.measured[known]


def _loss(curves: Sequence[Curve], widths: Mapping[str, int]) -> float:
    return sum(curve.losses[widths[curve.unit.layer]] for curve in curves)


def _uniform_loss(
    curves: Sequence[Curve], targets: Sequence[Target], footprint: Footprint, amounts: Amounts
) -> float | None:
    """Of the least ratio for all layers that reaches the targets; None where none does, or where they are measured."""
    if any(target.quantity == "latency" for target in targets):
        return None
    for thousandths in range(1, 1000):
        own = dataclasses.replace(amounts, ratio=thousandths / 1000)
        widths = {curve.unit.layer: curve.unit.filters - own.removed(curve.unit) for curve in curves}
        if not all(widths.values()):
            return None
        if all(footprint.share(target.quantity, widths) <= target.share for target in targets):
            return _loss(curves, widths)
    return None
