"""Repairs after filters have been removed, without labels: closed forms that need a few forward passes, and layers
trained by themselves towards the dense network's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ice_ray.pruning.calibration import ScoringContext
from ice_ray.repair.batch_norms import recalibrate
from ice_ray.repair.before_removal import assign, made_ready, ready_for, remaining_problem, whole_problem
from ice_ray.repair.least_squares import can_be_refitted, outputs_left, problem_of, readers_of, refit
from ice_ray.repair.reconstruction import reconstruct

RepairKind = Literal["none", "bn", "least-squares", "reconstruction"]
Errors = dict[str, tuple[float, float]]

__all__ = ["Repair", "Repairs", "made_ready", "misses_readers", "recalibrate", "refits", "repair"]


@dataclass(frozen=True)
class Repaired:
    """What repairs have come to, as shares of targets' mean squares that are not reproduced, before and after.

    Attributes:
        refitted: per refitted reader, and the layer that answers, of its targets about their means.
        reconstructed: by the module behind which a step is looked at.
        targets_held: whether what a reconstruction aims at was computed once; else for every batch.
    """

    refitted: Errors = field(default_factory=dict)
    reconstructed: Errors = field(default_factory=dict)
    targets_held: bool = True


def refits(kind: RepairKind) -> bool:
    """Whether a repair refits layers, whatever comes behind that."""
    return kind in ("least-squares", "reconstruction")


def repair(
    context: ScoringContext,
    kind: RepairKind,
    removed: Mapping[str, Sequence[int]],
    order: Sequence[str],
    remove: Callable[[], None],
    epochs: float = 0.0,
) -> Repaired:
    """Remove filters of a context's units from its network, and repair it, in place.

    `bn` estimates batch-norm statistics anew from the first pruned layer on. `least-squares` refits the layers whose
    filters are to go, to what they give in the dense network, and then, in the order in which they run, the layers that
    read what is left, so that the sums in which they end are those of the dense network; norms behind keep the
    statistics that go with it. The first reader reads after the removal what it read before, less what has gone: its
    problem is set up before, where a criterion may have set it up already. After the last step the layer that gives the
    answers is refitted, too. Where a reader cannot be refitted, norms are estimated anew as well. `reconstruction`
    begins with that, and then trains the step's layers and their readers together, if all of these were refitted.

    Args:
        removed: per layer, the filters that go.
        order: convolutions and linear layers in the order in which they run.
        remove: takes them.
        epochs: of a reconstruction.
    """
    layers = {unit.layer for unit in context.units}
    first = next(layer for layer in order if layer in layers)
    readers = readers_of(context, order) if refits(kind) else []
    whole = whole_problem(context, readers[0]) if readers else None
    widths = {unit.layer: len(context.weight(unit)) for unit in context.units}
    if readers:
        assign(context.model, ready_for(context))
    remove()
    dense = context.dense()
    gone = dict(removed) | {gate: removed.get(unit.layer, ()) for unit in context.units for gate in unit.gates}
    errors: Errors = {}
    missed = _consumers(context) - set(readers)

    def estimate(last: str | None) -> None:
        """Norms from the first pruned layer on, but for those that go with what has been refitted."""
        refitted = [*made_ready(context), *errors] if readers else []
        settled = [norm for norm in map(context.norms.get, refitted) if norm is not None]
        recalibrate(context.model, context.batches, context.reduction, first, last, context.resuming, settled)

    for reader in readers:
        own = context.model.get_submodule(reader)
        outputs = outputs_left(own, len(dense.get_parameter(f"{reader}.weight")), gone, reader)
        if outputs is None or reader in context.fixed or not can_be_refitted(own):
            missed.add(reader)
            continue
        problem = None
        if any(order.index(each) < order.index(reader) for each in missed):
            estimate(reader)  # fitted to what it will read
        elif whole is not None and reader == readers[0]:
            (read,) = (unit.layer for unit in context.units if reader in unit.consumers)
            problem = remaining_problem(context, reader, whole, widths[read], removed.get(read, ()), outputs)
        if problem is None:
            problem = problem_of(context, reader, outputs)
        errors[reader] = refit(context, reader, problem)
    reconstructed: Errors = {}
    held = True
    if misses_readers(context, errors):
        estimate(None)
    elif kind == "reconstruction":
        reconstructed, held = reconstruct(context, errors, order, epochs)
    last = context.answers if refits(kind) and context.answers not in context.fixed else None
    if last is not None and last not in errors and can_be_refitted(context.model.get_submodule(last)):
        outputs = torch.arange(len(dense.get_parameter(f"{last}.weight")))
        errors[last] = refit(context, last, problem_of(context, last, outputs))
    return Repaired(errors, reconstructed, held)


def misses_readers(context: ScoringContext, refitted: Collection[str]) -> bool:
    """Whether a layer that reads filters of the step is not among those that have been refitted, or none is known."""
    return not _consumers(context) or bool(_consumers(context) - set(refitted))


def _consumers(context: ScoringContext) -> set[str]:
    return {reader for unit in context.units for reader in unit.consumers}
