"""Parts of a network that lose filters together, and who reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrunableUnit:
    """A convolution (or linear layer) whose filters (hidden units) can go without touching another block.

    Attributes:
        layer: module path of the layer that owns the filters.
        filters: how many it has in the dense model.
        consumers: module paths of the layers that read them.
        inner: those of the consumers that are in the same block.
        gates: layers that lose the same filters, because they multiply this one's.
        groups: filters go alike from this many equal runs of them (a grouped layer reads or owns them).
    """

    layer: str
    filters: int
    consumers: tuple[str, ...]
    inner: tuple[str, ...] = ()
    groups: int = 1
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class PruningStep:
    """The units that are pruned together: those of one block. `number` counts from 1, shallow to deep."""

    number: int
    units: tuple[PrunableUnit, ...]

    @property
    def name(self) -> str:
        """The pruned layers, for people."""
        return " + ".join(unit.layer for unit in self.units)
