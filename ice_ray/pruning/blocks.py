"""The blocks of a network, and which layers' filters stay inside theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from ice_ray.models.trace import LayerTrace
from ice_ray.pruning.coupling import Coupling

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
