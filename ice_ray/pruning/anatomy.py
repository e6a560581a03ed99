"""What may be pruned, in which steps: filters that nothing couples to another block."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from ice_ray.errors import UserError
from ice_ray.models.trace import LayerTrace
from ice_ray.models.units import PrunableUnit, PruningStep
from ice_ray.pruning.blocks import Blocks, is_layer
from ice_ray.pruning.coupling import OUTPUTS, Coupling, coupling_of, dependency_graph
from ice_ray.pruning.selection import Selection

_OUTSIDE = "its filters are read outside its block (stem, transition or head); prune.include takes it all the same"
_FROZEN = "frozen (requires_grad=False); prune.include takes it all the same"
_LEFT_OUT = "left out by prune.include or prune.exclude"


@dataclass(frozen=True)
class Anatomy:
    """What can be pruned in a network and what cannot.

    Attributes:
        steps: those of a run, shallow to deep.
        refused: of every other convolution and linear layer, why not.
        outside: those of them that could be pruned, and are frozen by nobody, if patterns asked for them.
    """

    steps: tuple[PruningStep, ...]
    refused: Mapping[str, str]
    outside: tuple[str, ...] = ()


def dissect(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    traces: Sequence[LayerTrace],
    selection: Selection = Selection(),
    frozen: Collection[str] = (),
    tied: Mapping[str, str] = MappingProxyType({}),
) -> Anatomy:
    """The steps of a run (Algorithm 2, sigma), and why other layers have no part in it.

    A unit is a layer whose filters are read directly by layers of its own block: no residual sum and no concatenation
    couples them to another. Units of one block are one step. What lies between blocks (stem, transitions, head) is
    left alone unless asked for; a network without blocks, a plain chain, is one block whose layers are steps of
    their own.

    Args:
        tied: modules, by path, that hold a tensor which has another name too, and that name: none of them is cut, for
            that would take the two apart.
        frozen: layers whose weights their user holds fixed: neither their filters nor their inputs go unless asked for.

    Raises:
        UserError: nothing may be pruned, or a pattern that matches nothing that may.
    """
    graph = dependency_graph(model, image_shape)
    modules = dict(model.named_modules())
    layers = list(dict.fromkeys(trace.name for trace in traces))
    found = {layer: coupling_of(graph, layer, modules) for layer in layers}
    couplings = _first_owners(coupling for coupling in found.values() if isinstance(coupling, Coupling))
    blocks = Blocks(traces, modules, couplings)
    faulty = {c.layer: why for c in couplings if (why := _tied(c, tied))} | dict(selection.faulty)
    possible = [coupling.layer for coupling in couplings if coupling.layer not in faulty]
    held = {coupling.layer: why for coupling in couplings if (why := _held(coupling, frozen))}
    usual = [layer for layer in possible if blocks.encloses(layer) and layer not in held]
    refused = {layer: reason for layer, reason in found.items() if isinstance(reason, str)}
    refused |= {gate: f"it goes with {c.layer}, which it gates" for c in couplings for gate in c.gates}
    refused |= faulty
    refused |= {name: "the trace has not met it" for name, m in modules.items() if is_layer(m) and name not in found}
    chosen = selection.choose(possible, usual, refused)
    for layer in possible:
        if layer not in chosen:
            asked = layer in usual or bool(selection.include)
            refused[layer] = _LEFT_OUT if asked else held.get(layer, _OUTSIDE)
    if not chosen:
        raise UserError(_nothing(refused))
    outside = tuple(layer for layer in possible if layer not in chosen and layer not in held)
    return Anatomy(_steps([c for c in couplings if c.layer in chosen], set(usual), blocks), refused, outside)


def is_choice(reason: str) -> bool:
    """Whether a layer of which this is said, why it is not pruned, would be if it were asked for."""
    return reason in (_OUTSIDE, _LEFT_OUT) or reason.endswith(_FROZEN)


def _tied(coupling: Coupling, tied: Mapping[str, str]) -> str | None:
    """Why a layer cannot be pruned though its filters might go: it would take tensors apart that are one."""
    touched = next((module for module in coupling.cut if module in tied), None)
    if touched == coupling.layer:
        return f"it holds one tensor together with {tied[touched]}: cutting it would take them apart"
    if touched is not None:
        return f"{touched}, which would be cut with it, holds one tensor together with {tied[touched]}"
    return None


def _held(coupling: Coupling, frozen: Collection[str]) -> str | None:
    """Why a layer stays whole though its filters might go: it would cut weights that are frozen."""
    if coupling.layer in frozen:
        return f"its weights are {_FROZEN}"
    touched = next((layer for layer in coupling.cut if layer in frozen), None)
    return None if touched is None else f"the weights of {touched}, which would be cut with it, are {_FROZEN}"


def _first_owners(couplings: Iterable[Coupling]) -> list[Coupling]:
    """One coupling per set of filters: that of the layer that comes first, not those of the layers that gate it."""
    gating: set[str] = set()
    owners = []
    for coupling in couplings:
        if coupling.layer not in gating:
            owners.append(coupling)
            gating |= set(coupling.gates)
    return owners


def _steps(couplings: Sequence[Coupling], usual: set[str], blocks: Blocks) -> tuple[PruningStep, ...]:
    """A step per block; stems, heads and the links of a plain chain are steps of their own."""
    grouped: dict[str, list[PrunableUnit]] = {}
    for coupling in couplings:
        layer, block = coupling.layer, blocks.of(coupling.layer)
        inner = tuple(reader for reader in coupling.readers if blocks.of(reader) == block)
        unit = PrunableUnit(layer, coupling.filters, coupling.readers, inner, coupling.groups, coupling.gates)
        grouped.setdefault(block if layer in usual and not blocks.is_chain(block) else layer, []).append(unit)
    return tuple(PruningStep(number, tuple(units)) for number, units in enumerate(grouped.values(), start=1))


def _nothing(refused: Mapping[str, str]) -> str:
    if not refused:
        return "the model has no convolution and no linear layer"

    def rank(each: tuple[str, str]) -> tuple[bool, bool, bool]:
        """First what can be mended, last what holds in every network."""
        return _FROZEN not in each[1], not is_choice(each[1]), each[1] == OUTPUTS

    layer, reason = min(refused.items(), key=rank)
    return f"the model has no layer whose filters may be pruned; for example {layer}: {reason}"
