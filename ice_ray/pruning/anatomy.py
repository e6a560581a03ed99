"""What may be pruned, in which steps: filters that nothing couples to another block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from ice_ray.errors import UserError
from ice_ray.models.trace import LayerTrace
from ice_ray.models.units import PrunableUnit, PruningStep
from ice_ray.pruning.attention import Heads, find_heads
from ice_ray.pruning.channel_trace import ChannelTrace, trace_channels
from ice_ray.pruning.coupled_sets import coupled_sets
from ice_ray.pruning.coupling import DEPTHWISE, OUTPUTS, Coupling, coupling_of, dependency_graph
from ice_ray.pruning.selection import Selection

_OUTSIDE = "its filters are read outside its block (stem, transition or head); prune.include takes it all the same"
_FROZEN = "frozen (requires_grad=False); prune.include takes it all the same"
_ALONG = "it runs along channels: its filters are positions of an image, which stay"
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
    modules = dict(model.named_modules())
    layers = list(dict.fromkeys(trace.name for trace in traces))
    trace = trace_channels(model, image_shape) if selection.coupled else ChannelTrace()
    sets = coupled_sets(trace)
    found: dict[str, Coupling | str]
    try:
        graph = dependency_graph(model, image_shape)
        found = {layer: coupling_of(graph, layer, modules) for layer in layers}
    except UserError:
        if not selection.coupled:
            raise
        found = {layer: DEPTHWISE for layer in layers if layer not in sets}
        found |= {layer: own for layer, own in sets.items() if isinstance(own, str) or own.is_alone}
    couplings = _first_owners(coupling for coupling in found.values() if isinstance(coupling, Coupling))
    blocks = Blocks(traces, modules, couplings)
    refused = {layer: reason for layer, reason in found.items() if isinstance(reason, str)}
    refused |= {part.name: _ALONG for part in trace.parts if part.side == "lanes" and part.name in refused}
    attentions = _heads(model, image_shape, refused) if selection.heads else []
    couplings = sorted([*couplings, *attentions], key=lambda coupling: layers.index(_first(coupling)))
    faulty = {c.layer: why for c in couplings if (why := _tied(c, tied))} | dict(selection.faulty)
    possible = [coupling.layer for coupling in couplings if coupling.layer not in faulty]
    held = {coupling.layer: why for coupling in couplings if (why := _held(coupling, frozen))}
    with_heads = {coupling.layer for coupling in attentions}
    usual = [each for each in possible if (each in with_heads or blocks.encloses(each)) and each not in held]
    refused |= {gate: f"it goes with {c.layer}, which it gates" for c in couplings for gate in c.gates}
    refused |= faulty
    coupled = _coupled(sets, couplings, refused, faulty, tied)
    every = couplings + coupled
    held |= {coupling.layer: why for coupling in coupled if (why := _held(coupling, frozen))}
    possible += [coupling.layer for coupling in coupled]
    wanted = [layer for layer in possible if layer not in held] if selection.coupled else usual
    known = {*found, *sets}
    refused |= {name: "the trace has not met it" for name, m in modules.items() if is_layer(m) and name not in known}
    chosen = selection.choose(possible, wanted, refused)
    for layer in possible:
        if layer not in chosen:
            asked = layer in wanted or bool(selection.include)
            refused[layer] = _LEFT_OUT if asked else held.get(layer, _OUTSIDE)
    if not chosen:
        raise UserError(_nothing(refused))
    outside = tuple(layer for layer in possible if layer not in chosen and layer not in held)
    if selection.coupled:  # after the steps of the blocks
        every.sort(key=lambda coupling: (coupling.layer not in usual, layers.index(_first(coupling))))
    steps = _steps([coupling for coupling in every if coupling.layer in chosen], set(usual), blocks)
    return Anatomy(steps, refused, outside)


def _coupled(
    sets: Mapping[str, Coupling | str],
    couplings: Sequence[Coupling],
    refused: dict[str, str],
    faulty: dict[str, str],
    tied: Mapping[str, str],
) -> list[Coupling]:
    """The coupled sets of filters that may go beside those that nothing couples; reasons for others are added."""
    alone = {layer for own in couplings for layer in (own.layer, *own.gates, *(row for row, _ in own.coupled))}
    found = {layer: own for layer, own in sets.items() if layer not in alone}
    refused |= {layer: own for layer, own in found.items() if isinstance(own, str)}
    coupled = []
    for layer, own in found.items():
        if isinstance(own, Coupling):
            refused.pop(layer, None)
            if (why := _tied(own, tied)) is not None:
                refused[layer] = faulty[layer] = why
            elif layer in faulty:
                refused[layer] = faulty[layer]
            else:
                coupled.append(own)
    return coupled


def _heads(model: nn.Module, image_shape: tuple[int, int, int], refused: dict[str, str]) -> list[Coupling]:
    """Attentions whose heads may go; reasons are added why others, and layers by themselves, may not."""
    found = find_heads(model, image_shape)
    refused |= {attention: own for attention, own in found.items() if isinstance(own, str)}
    attentions = [own.coupling for own in found.values() if isinstance(own, Heads)]
    refused |= {row: f"its filters go with the heads of {own.layer}" for own in attentions for row, _ in own.coupled}
    return attentions


def _first(coupling: Coupling) -> str:
    """A layer that owns filters which go; of an attention the first of its layers."""
    return coupling.coupled[0][0] if coupling.heads else coupling.layer


def is_choice(reason: str) -> bool:
    """Whether this reason for not pruning a layer would not hold if the user asked for the layer."""
    return reason in (_OUTSIDE, _LEFT_OUT) or reason.endswith(_FROZEN)


def _tied(coupling: Coupling, tied: Mapping[str, str]) -> str | None:
    """Why a layer whose filters might go cannot be pruned: it shares a tensor with another."""
    touched = next((module for module in coupling.cut if module in tied), None)
    if touched == coupling.layer:
        return f"it holds one tensor together with {tied[touched]}: cutting it would take them apart"
    if touched is not None:
        return f"{touched}, which would be cut with it, holds one tensor together with {tied[touched]}"
    return None


def _held(coupling: Coupling, frozen: Collection[str]) -> str | None:
    """Why a layer whose filters might go stays whole: frozen weights would be cut."""
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
        layer, block = coupling.layer, blocks.of(_first(coupling))
        inner = tuple(reader for reader in coupling.readers if blocks.of(reader) == block)
        unit = PrunableUnit(
            *(layer, coupling.filters, coupling.readers, inner, coupling.groups, coupling.gates),
            *(coupling.coupled, coupling.columns, coupling.fixed, coupling.lanes, coupling.heads),
        )
        of_block = layer in usual and not coupling.heads and not blocks.is_chain(block)
        grouped.setdefault(block if of_block else layer, []).append(unit)
    return tuple(PruningStep(number, tuple(units)) for number, units in enumerate(grouped.values(), start=1))


def _nothing(refused: Mapping[str, str]) -> str:
    if not refused:
        return "the model has no convolution and no linear layer"

    def rank(each: tuple[str, str]) -> tuple[bool, bool, bool]:
        """First what can be mended, last what holds in every network."""
        return _FROZEN not in each[1], not is_choice(each[1]), each[1] == OUTPUTS

    layer, reason = min(refused.items(), key=rank)
    return f"the model has no layer whose filters may be pruned; for example {layer}: {reason}"


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# A residual block holds fewer layers than this whose filters may go; where nothing couples more, it is a chain.
_LONG = 4


class Blocks:
    """The block of every layer: the nearest module around it that holds several layers and is no plain container.

    A squeeze (a module of linear layers or 1x1 convolutions that sees an image at a single position, as in
    squeeze-and-excitation) belongs to the block around it.

    Args:
        traces: of the convolutions and linear layers.
        modules: all of the network's, by path.
        couplings: of the layers whose filters may go.
    """

    def __init__(
        self, traces: Sequence[LayerTrace], modules: Mapping[str, nn.Module], couplings: Sequence[Coupling]
    ) -> None:
        self._modules = modules
        self._several = {name for name, module in modules.items() if sum(map(is_layer, module.modules())) > 1}
        own = {trace.name: self._around(trace.name) for trace in traces}
        wide = {own[trace.name] for trace in traces if not _squeezes(trace, modules)}
        self._blocks = {layer: self._wide(block, wide) for layer, block in own.items()}
        self._inner = {c.layer for c in couplings if all(self.of(reader) == self.of(c.layer) for reader in c.readers)}
        possible = {coupling.layer for coupling in couplings}
        self._coupled = {self.of(layer) for layer in list(own)[:-1] if layer not in possible}
        self._inner_of = Counter(self.of(layer) for layer in self._inner)

    def of(self, layer: str) -> str:
        """The block's module path."""
        return self._blocks[layer]

    def encloses(self, layer: str) -> bool:
        """Whether a layer and all that read it lie in one block, which holds no smaller blocks of that kind: there its
        layers would be stem, transition or head.
        """
        block = self.of(layer)
        prefix = f"{block}." if block else ""
        return layer in self._inner and not any(other != block and other.startswith(prefix) for other in self._inner_of)

    def is_chain(self, block: str) -> bool:
        """Whether the layers of a block merely follow one another: those of the whole network, or many of them
        without any that a sum or a concatenation couples.
        """
        if len(set(self._blocks.values())) == 1:
            return True
        return self._inner_of[block] >= _LONG and block not in self._coupled

    def _around(self, path: str) -> str:
        parent = path.rpartition(".")[0]
        while parent and (isinstance(self._modules[parent], _CONTAINERS) or parent not in self._several):
            parent = parent.rpartition(".")[0]
        return parent

    def _wide(self, block: str, wide: set[str]) -> str:
        """The block itself, or the one around it if it is a squeeze."""
        return block if block in wide or not block else self._wide(self._around(block), wide)


def is_layer(module: nn.Module) -> bool:
    """Whether a module has filters or hidden units of its own."""
    return isinstance(module, (nn.Conv2d, nn.Linear))


def _squeezes(trace: LayerTrace, modules: Mapping[str, nn.Module]) -> bool:
    module = modules[trace.name]
    return trace.positions == 1 and (isinstance(module, nn.Linear) or module.kernel_size == (1, 1))
