"""What every width of every unit costs the network's answers: the curves that an allocation chooses from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.data.images import PruningData
from ice_ray.distributed import SingleProcess
from ice_ray.engine.actions import Score
from ice_ray.engine.calibrator import Calibrator
from ice_ray.engine.cost import Cost
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.work import Stopwatch, forward_flops
from ice_ray.models.answers import logits_of
from ice_ray.models.units import PrunableUnit, all_kept, rows_now
from ice_ray.pruning.allocation import Curve
from ice_ray.pruning.criteria.base import ScoringContext
from ice_ray.pruning.criteria.residual import Elimination
from ice_ray.pruning.removal import remove_filters
from ice_ray.repair.context import RepairContext
from ice_ray.repair.least_squares import Problem, assign_weights
from ice_ray.repair.step_problems import StepProblems, restored

IMAGES = 256
"""Of the calibration images: enough to tell layers apart."""
_TRIED = (0.5, 0.85)
"""Shares of a unit's filters with which the network is asked what their removal does to its answers."""
_STEEPEST = 3.0
_LEAST = 1e-12


@dataclass(frozen=True)
class WidthLosses:
    """The curves of all units, and what they took."""

    curves: tuple[Curve, ...]
    cost: Cost


def width_losses(network: DenseNetwork, data: PruningData, seed: int, device: torch.device) -> WidthLosses:
    """For every unit and width, how far the answers of the network would be from the dense network's: the mean
    Kullback-Leibler divergence, in nats, over calibration images, with that unit alone pruned and its readers refitted.

    One elimination of all of a unit's filters (as criterion `residual` orders them) gives the error of its readers at
    every width. At two of the widths the refitted network is asked for its answers; in between, and beyond, the
    logarithm of the divergence follows that of the error in a straight line. Labels are not looked at.

    Args:
        data: the calibration images are drawn from its training images, which lie on the device.
        seed: of the run.
    """
    calibrator = Calibrator(network, data, "fp32", seed, SingleProcess(), lambda: dense)
    watch, dense, flops = Stopwatch(device), network.build(device), 0.0
    curves = dict[str, Curve]()
    images, whole, wanted = min(IMAGES, len(data.train)), all_kept(network.units), list[Tensor]()
    for step in network.steps:
        # Nothing has gone: the network as it stands is the dense one, and its passes serve for both.
        context = calibrator.context(dense, whole, Score(step.number, "residual", images), "dense")
        problems, wanted = StepProblems(), wanted or _answers(context, dense)
        for unit in step.units:
            curve, passes = _curve(network, context, problems, unit, wanted)
            curves[unit.layer] = curve
            flops += passes * images * forward_flops(dense, network.traces)
    return WidthLosses(tuple(curves[unit.layer] for unit in network.units), Cost(watch.seconds(), flops))


def _curve(
    network: DenseNetwork, context: RepairContext, problems: StepProblems, unit: PrunableUnit, wanted: Sequence[Tensor]
) -> tuple[Curve, float]:
    """A unit's, and the forward passes that it took."""
    scoring = ScoringContext.of(context, problems, unit.consumers)
    columns = scoring.columns[unit.layer]
    readers = {reader: problem for reader, problem in scoring.problems.items() if reader in columns}
    if not readers:
        return _by_weights(network, context, unit, wanted), len(_TRIED)
    eliminations = {
        reader: Elimination(problem.fitted, columns[reader], unit.filters) for reader, problem in readers.items()
    }
    run, last = unit.filters // unit.groups, _most_removed(unit)
    errors, asked = [0.0], dict[int, float]()
    freed = scoring.freed[unit.layer].clamp_min(1.0)  # as criterion `residual` orders them
    for removed in range(1, last + 1):
        error = errors[-1]
        for own in range(unit.groups):  # every run loses as many
            rises = torch.stack([each.rises() for each in eliminations.values()]).sum(dim=0).cpu()
            rises[list(unit.fixed)] = torch.inf
            goes = own * run + int((rises / freed).view(unit.groups, run)[own].argmin())
            error += float(rises[goes])
            for each in eliminations.values():
                each.remove(goes)
        errors.append(error)
        if removed in _tried(unit):
            fits = {reader: (problem, eliminations[reader].weights) for reader, problem in readers.items()}
            asked[removed] = _divergence(context, fits, wanted)
    return Curve(unit, _losses(unit, errors, asked)), 1 + len(asked)


def _most_removed(unit: PrunableUnit) -> int:
    """Of each of its runs of filters: all but one, or those that must stay."""
    return unit.filters // unit.groups - max(1, len(unit.fixed) // unit.groups)


def _tried(unit: PrunableUnit) -> list[int]:
    """Removals from each run after which the network is asked."""
    run, last = unit.filters // unit.groups, _most_removed(unit)
    return sorted({min(last, max(1, round(share * run))) for share in _TRIED}) if last else []


def _losses(unit: PrunableUnit, errors: Sequence[float], asked: Mapping[int, float]) -> dict[int, float]:
    """By width, from the errors after so many removals in every run, and the divergences at some of them."""
    if not asked:
        return {unit.filters: 0.0}
    known = [(math.log(max(errors[at], _LEAST)), math.log(max(asked[at], _LEAST))) for at in sorted(asked)]
    (error, loss), slope = known[-1], 1.0
    if len(known) > 1 and known[-1][0] > known[0][0]:
        slope = min(max((loss - known[0][1]) / (error - known[0][0]), 1 / _STEEPEST), _STEEPEST)

    def at(each: float) -> float:
        return 0.0 if each <= _LEAST else math.exp(loss + slope * (math.log(each) - error))

    run, greatest = unit.filters // unit.groups, 0.0
    losses = {}
    for removed, each in enumerate(errors):
        greatest = max(greatest, at(each))
        losses[(run - removed) * unit.groups] = greatest
    return losses


@torch.no_grad()
def _divergence(context: RepairContext, fits: Mapping[str, tuple[Problem, Tensor]], wanted: Sequence[Tensor]) -> float:
    """Of the answers from the dense network's, with readers of these weights, in nats an image."""
    with restored(context.model, list(_with_norms(context, fits))):
        for reader, (problem, weights) in fits.items():
            assign_weights(context, reader, problem, weights)
        return _between(_answers(context, context.model), wanted)


def _with_norms(context: RepairContext, layers: Mapping[str, object]) -> dict[str, None]:
    norms = context.structure.norms
    return dict.fromkeys(name for layer in layers for name in (layer, norms.get(layer)) if name is not None)


@torch.no_grad()
def _answers(context: RepairContext, model: nn.Module) -> list[Tensor]:
    """Logarithms of a network's probabilities for the calibration images, by batch."""
    found = []
    for number, (batch, _) in enumerate(context.images.batches()):
        is_known = model is context.model  # whose activations before the step are held
        with context.images.resuming(model, number) if is_known else nullcontext():
            found.append(F.log_softmax(logits_of(model(batch)).float(), dim=1))
    return found


def _between(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The mean divergence of an image's answers."""
    total = sum(
        float(F.kl_div(own, other, reduction="sum", log_target=True)) for own, other in zip(given, wanted, strict=True)
    )
    return total / sum(map(len, wanted))


def _by_weights(network: DenseNetwork, context: RepairContext, unit: PrunableUnit, wanted: Sequence[Tensor]) -> Curve:
    """Where no reader can be refitted: filters go whose weights, in all layers that lose them, have the least norm; the
    error is their share of the weights.
    """
    squares = torch.zeros(unit.filters)
    for layer, places in rows_now(unit, context.kept):
        own = context.model.get_parameter(f"{layer}.weight").detach().float().flatten(1).square().sum(dim=1).cpu()
        goes = torch.tensor(places)
        squares.index_add_(0, goes[goes >= 0], own[goes >= 0])
    order = (
        squares.index_fill(0, torch.tensor(unit.fixed, dtype=torch.int64), torch.inf).view(unit.groups, -1).sort(dim=1)
    )
    shares = (order.values.sum(dim=0).cumsum(dim=0) / squares.sum()).tolist()
    errors, asked = [0.0, *shares[: _most_removed(unit)]], {}
    run = unit.filters // unit.groups
    for removed in _tried(unit):
        filters = (order.indices[:, :removed] + run * torch.arange(unit.groups)[:, None]).flatten().tolist()
        pruned = network.build(next(context.model.parameters()).device)
        remove_filters(pruned, network.image_shape, {unit.layer: filters})
        asked[removed] = _between(_answers(context, pruned), wanted)
    return Curve(unit, _losses(unit, errors, asked))
