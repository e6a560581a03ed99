"""What may be pruned, in which steps: filters that nothing couples to another block."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ice_ray.errors import UserError, nearest
from ice_ray.models.trace import LayerTrace
from ice_ray.pruning.coupling import Coupling, coupling_of, dependency_graph

_OUTSIDE = "its filters are read outside its block (stem, transition or head); --prune.include takes it all the same"


@dataclass(frozen=True)
class PrunableUnit:
    """A convolution (or linear layer) whose filters (hidden units) can go without touching another block.

    Attributes:
        layer: module path of the layer that owns the filters.
        filters: how many it has in the dense model.
        consumers: module paths of the layers that read them.
        inner: those of the consumers that are in the same block.
        groups: filters go alike from this many equal runs of them (a grouped layer reads or owns them).
    """

    layer: str
    filters: int
    consumers: tuple[str, ...]
    inner: tuple[str, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class PruningStep:
    """The units that are pruned together: those of one block. `number` counts from 1, shallow to deep."""

    number: int
    units: tuple[PrunableUnit, ...]

    @property
    def name(self) -> str:
        """The pruned layers, for people."""
        return " + ".join(unit.layer for unit in self.units)


@dataclass(frozen=True)
class Selection:
    """Which of the prunable layers to prune: patterns of module paths, as in a shell (`layer3.*`).

    Attributes:
        include: only layers that match one of these, stems and heads too; without any, all that lie within a block.
        exclude: none that matches one of these.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """What can be pruned in a network and what cannot.

    Attributes:
        steps: those of a run, shallow to deep.
        refused: of every other convolution and linear layer, why not.
    """

    steps: tuple[PruningStep, ...]
    refused: Mapping[str, str]


def dissect(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    traces: Sequence[LayerTrace],
    selection: Selection = Selection(),
) -> Anatomy:
    """The steps of a run (Algorithm 2, sigma), and why other layers have no part in it.

    A unit is a layer whose filters are read directly by layers of its own block: no residual sum and no concatenation
    couples them to another. A block is the nearest module around a layer that holds several layers and is no plain
    sequence; a squeeze-and-excitation belongs to the block it gates. Units of one block are one step. What lies
    between blocks (stem, transitions, head) is left alone unless asked for; a network without blocks, a plain
    chain, is one block whose layers are steps of their own.

    Raises:
        UserError: nothing may be pruned, or a pattern that matches nothing that may.
    """
    graph = dependency_graph(model, image_shape)
    modules = dict(model.named_modules())
    traced = list(dict.fromkeys(trace.name for trace in traces))
    found = {name: coupling_of(graph, name, modules) for name in traced}
    couplings = _first_owners([coupling for coupling in found.values() if isinstance(coupling, Coupling)])
    blocks = _blocks(traced, modules, couplings)
    refused = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    refused |= {gate: f"it goes with {c.layer}, which it gates" for c in couplings for gate in c.gates}
    outside = {c.layer: _OUTSIDE for c in couplings if not _is_inner(c, couplings, blocks)}
    chosen = _select(couplings, outside, refused, selection)
    refused |= {name: reason for name, reason in outside.items() if name not in chosen}
    excluded = {c.layer for c in couplings} - set(chosen) - set(refused)
    refused |= dict.fromkeys(excluded, "left out by --prune.include or --prune.exclude")
    refused |= {name: "the trace has not met it" for name, m in modules.items() if _is_layer(m) and name not in found}
    if not chosen:
        raise UserError(_nothing(refused))
    alone = set(outside) if len(set(blocks.values())) > 1 else chosen  # a plain chain has no blocks
    grouped: dict[str, list[PrunableUnit]] = {}
    for unit in (_unit(coupling, blocks) for coupling in couplings if coupling.layer in chosen):
        grouped.setdefault(unit.layer if unit.layer in alone else blocks[unit.layer], []).append(unit)
    steps = tuple(PruningStep(number, tuple(units)) for number, units in enumerate(grouped.values(), start=1))
    return Anatomy(steps, refused)


def _first_owners(couplings: Iterable[Coupling]) -> list[Coupling]:
    """One coupling per set of filters: that of the layer that comes first, not those of the layers that gate it."""
    gating: set[str] = set()
    owners = []
    for coupling in couplings:
        if coupling.layer not in gating:
            owners.append(coupling)
            gating |= set(coupling.gates)
    return owners


def _blocks(layers: Sequence[str], modules: Mapping[str, nn.Module], couplings: Sequence[Coupling]) -> dict[str, str]:
    """The block of each layer."""
    several = {name for name, module in modules.items() if sum(map(_is_layer, module.modules())) > 1}

    def block_of(layer: str) -> str:
        parent = layer.rpartition(".")[0]
        while parent and (isinstance(modules[parent], nn.Sequential) or parent not in several):
            parent = parent.rpartition(".")[0]
        return parent

    blocks = {layer: block_of(layer) for layer in layers}
    gates = {blocks[gate]: blocks[c.layer] for c in couplings for gate in c.gates if blocks[gate] != blocks[c.layer]}
    return {layer: gates.get(block, block) for layer, block in blocks.items()}


def _is_inner(coupling: Coupling, couplings: Sequence[Coupling], blocks: Mapping[str, str]) -> bool:
    """Whether a layer and all that read it lie in one block that does not itself hold blocks with such layers."""
    own = blocks[coupling.layer]
    if any(blocks[reader] != own for reader in coupling.readers):
        return False
    prefix = f"{own}." if own else ""
    return not any(
        blocks[other.layer] != own
        and blocks[other.layer].startswith(prefix)
        and all(blocks[reader] == blocks[other.layer] for reader in other.readers)
        for other in couplings
    )


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Linear))


def _unit(coupling: Coupling, blocks: Mapping[str, str]) -> PrunableUnit:
    own = blocks[coupling.layer]
    inner = tuple(reader for reader in coupling.readers if blocks[reader] == own)
    return PrunableUnit(coupling.layer, coupling.filters, coupling.readers, inner, coupling.groups)


def _select(
    couplings: Sequence[Coupling], outside: Mapping[str, str], refused: Mapping[str, str], selection: Selection
) -> set[str]:
    """The layers to prune.

    Raises:
        UserError: a pattern that matches nothing that may be pruned.
    """
    possible = [coupling.layer for coupling in couplings]
    for option, patterns in (("include", selection.include), ("exclude", selection.exclude)):
        for pattern in patterns:
            if not fnmatch.filter(possible, pattern):
                raise UserError(f"--prune.{option} '{pattern}' matches no prunable layer{_why(pattern, refused)}")
    if selection.include:
        chosen = {layer for pattern in selection.include for layer in fnmatch.filter(possible, pattern)}
    else:
        chosen = set(possible) - set(outside)
    return chosen - {layer for pattern in selection.exclude for layer in fnmatch.filter(possible, pattern)}


def _why(pattern: str, refused: Mapping[str, str]) -> str:
    matched = fnmatch.filter(refused, pattern)
    if matched:
        return f": {matched[0]} cannot be pruned, {refused[matched[0]]}"
    return f" ({nearest(pattern, list(refused))[:300]})" if refused else ""


def _nothing(refused: Mapping[str, str]) -> str:
    first = next(((name, reason) for name, reason in refused.items()), None)
    example = f"; for example {first[0]}: {first[1]}" if first else ": it has no convolution and no linear layer"
    return f"the model has no layer whose filters may be pruned{example}"
