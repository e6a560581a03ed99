"""The blocks of a network, and which layers' filters stay inside theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ice_ray.pruning.coupling import Coupling


class Blocks:
    """The block of every layer: the nearest module around it that holds several layers and is no plain sequence.

    A squeeze-and-excitation belongs to the block it gates.

    Args:
        layers: module paths of the convolutions and linear layers.
        modules: all of the network's, by path.
        couplings: of the layers whose filters may go.
    """

    def __init__(self, layers: Sequence[str], modules: Mapping[str, nn.Module], couplings: Sequence[Coupling]) -> None:
        several = {name for name, module in modules.items() if sum(map(is_layer, module.modules())) > 1}
        own = {layer: _nearest(layer, modules, several) for layer in layers}
        gated = {own[gate]: own[c.layer] for c in couplings for gate in c.gates if own[gate] != own[c.layer]}
        self._blocks = {layer: gated.get(block, block) for layer, block in own.items()}
        self._inner = {c.layer for c in couplings if all(self._blocks[r] == self._blocks[c.layer] for r in c.readers)}
        self._with_inner = {self._blocks[layer] for layer in self._inner}

    def of(self, layer: str) -> str:
        """The block's module path."""
        return self._blocks[layer]

    def encloses(self, layer: str) -> bool:
        """Whether a layer and all that read it lie in one block, which holds no smaller blocks of that kind: there its
        layers would be stem, transition or head.
        """
        block = self._blocks[layer]
        prefix = f"{block}." if block else ""
        return layer in self._inner and not any(
            other != block and other.startswith(prefix) for other in self._with_inner
        )

    @property
    def is_chain(self) -> bool:
        """Whether the network has no blocks: all layers follow one another."""
        return len(set(self._blocks.values())) == 1


def is_layer(module: nn.Module) -> bool:
    """Whether a module has filters or hidden units of its own."""
    return isinstance(module, (nn.Conv2d, nn.Linear))


def _nearest(layer: str, modules: Mapping[str, nn.Module], several: set[str]) -> str:
    parent = layer.rpartition(".")[0]
    while parent and (isinstance(modules[parent], nn.Sequential) or parent not in several):
        parent = parent.rpartition(".")[0]
    return parent
