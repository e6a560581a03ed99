"""Repairs without training, after filters have been removed: closed forms that need a few forward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ice_ray.pruning.calibration import ScoringContext
from ice_ray.pruning.compensation.batch_norms import recalibrate
from ice_ray.pruning.compensation.least_squares import can_be_refitted, outputs_left, readers_of, refit

Compensation = Literal["none", "bn", "least-squares"]

__all__ = ["Compensation", "compensate", "recalibrate"]


def compensate(
    context: ScoringContext,
    kind: Compensation,
    removed: Mapping[str, Sequence[int]],
    order: Sequence[str],
) -> dict[str, tuple[float, float]]:
    """Repair, in place, the network of a context from whose units filters have just been removed.

    `bn` estimates batch-norm statistics anew from the first pruned layer on. `least-squares` first refits, in the
    order in which they run, the layers that read the removed filters, to what they give in the dense network.

    Args:
        removed: per layer, the filters that this step took, as the layer was before it.
        order: convolutions and linear layers in the order in which they run.

    Returns:
        Per refitted layer the share of its dense outputs' mean square that it does not reproduce, before and after.
    """
    layers = {unit.layer for unit in context.units}
    first = next(layer for layer in order if layer in layers)
    errors: dict[str, tuple[float, float]] = {}
    if kind == "least-squares":
        dense = context.dense()
        gone = dict(removed) | {gate: removed.get(unit.layer, ()) for unit in context.units for gate in unit.gates}
        for reader in readers_of(context, order):
            own = context.model.get_submodule(reader)
            filters = len(dense.get_parameter(f"{reader}.weight"))
            outputs = outputs_left(own, filters, gone, reader)
            if outputs is not None and can_be_refitted(own):
                # It is to be fitted to what it will read.
                recalibrate(context.model, context.batches, context.reduction, first, reader)
                errors[reader] = refit(context, reader, outputs)
    recalibrate(context.model, context.batches, context.reduction, first)
    return errors
