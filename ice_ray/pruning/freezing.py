"""Layer freezing (section III-B): which layers change least while fine-tuning, and holding them fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Literal

from ice_ray.models.frozen import freeze
from ice_ray.models.units import PruningStep

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ice_ray.models.trace import LayerTrace

WeightChange = Literal["l2", "l1", "norm-difference"]

_CHANGES: dict[WeightChange, Callable[[Tensor, Tensor], Tensor]] = {
    # ||dW||_2 / ||W_0||_2: no layer size in it.
    "l2": lambda before, after: (after - before).norm() / before.norm(),
    # The text of section IV-B, ||dW||_1 / ||W_0||_2: grows with the root of a layer's size, so small layers are
    # frozen first and the large ones, which lose most filters and read most of those that are lost, go on training.
    "l1": lambda before, after: (after - before).abs().sum() / before.norm(),
    # The authors' program, | ||W||_1 - ||W_0||_1 | / ||W_0||_2: a difference of norms.
    "norm-difference": lambda before, after: (after.abs().sum() - before.abs().sum()).abs() / before.norm(),
}


def freezable_layers(
    steps: Sequence[PruningStep], traces: Sequence[LayerTrace], fixed: Collection[str] = ()
) -> tuple[str, ...]:
    """The layers that may be frozen, shallow to deep: those that own prunable filters, and those of the same block
    that read them.

    Stem, head, shortcuts and transitions are never among them.

    Args:
        fixed: layers that never train, and so have no part in the ranking.
    """
    units = [unit for step in steps for unit in step.units]
    inside = {name for unit in units for name in (*(unit.owners if unit.heads else (unit.layer,)), *unit.inner)}
    return tuple(dict.fromkeys(trace.name for trace in traces[1:-1] if trace.name in inside - set(fixed)))


def weight_changes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], layers: Sequence[str], change: WeightChange
) -> dict[str, float]:
    """Each layer's weight change over a fine-tune, normalised by the norm of its weights before (Fig. 2).

    Args:
        before, after: state dicts around the fine-tune, both after the probe's removal.
        layers: module paths of layers.
        change: `l1` (the paper's text), `l2` or `norm-difference` (the authors' program).
    """
    measure = _CHANGES[change]
    return {
        layer: float(measure(before[f"{layer}.weight"].double(), after[f"{layer}.weight"].double())) for layer in layers
    }


def rank_by_change(changes: Mapping[str, float]) -> tuple[str, ...]:
    """The layers, least change first; among equals the shallower first (the mapping's order)."""
    return tuple(sorted(changes, key=lambda layer: changes[layer]))


def frozen_layers(ranking: Sequence[str], frozen_fraction: float) -> tuple[str, ...]:
    """The ceil(eta x layers) layers of least change, eta in exact decimals."""
    count = (Decimal(repr(float(frozen_fraction))) * len(ranking)).to_integral_value(ROUND_CEILING)
    return tuple(ranking[: math.floor(count)])


def hold_fixed(
    model: nn.Module, layers: Sequence[str], norms: Mapping[str, str | None], parameters: Sequence[str] = ()
) -> None:
    """Let every parameter train but those of `layers`, convolution and batch-norm affine, in place.

    Running statistics of the batch norms go on updating; the layers go on being pruned.

    Args:
        norms: the batch norm that directly follows each layer, as traced.
        parameters: others that do not train either, by name.
    """
    freeze(model, set(parameters))
    for layer in layers:
        for name in (layer, norms.get(layer)):
            if name is not None:
                model.get_submodule(name).requires_grad_(False)
