"""Parts of a network that lose filters together, and who reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FilterMap = tuple[str, tuple[int, ...]]
"""A layer, and for each of its filters (or of its input channels) a filter of another layer, or -1 for none."""

Kept = Mapping[str, Sequence[int]]
"""By layer that owns filters, which of those of the dense network it still has, ascending."""


@dataclass(frozen=True)
class PrunableUnit:
    """Filters (hidden units) that can go: those of a layer, and whatever they take along.

    Most units are one layer, whose filters nothing ties to another's. What a residual sum, a concatenation or a
    multiplication ties together is one unit, too: a coupled set of channels. Its root, by which it is called, is the
    widest of the layers that own filters of the set, the first in running order among equals; a filter of the root
    takes along what it touches.

    Attributes:
        layer: module path of the layer that owns the filters; of a coupled set, of its root.
        filters: how many it has in the dense model.
        consumers: module paths of the layers that read them.
        inner: those of the consumers that are in the same block.
        gates: layers that lose the same filters, because they multiply this one's.
        groups: filters go alike from this many equal runs of them (a grouped layer reads or owns them).
        coupled: the other layers that own filters of the set: for each of such a layer's filters, in the dense model,
            the filter of the root with which it goes, or -1 where it goes with none and stays. Filters of the root that
            are in no such map are in none of those layers.
        columns: per reader, for each of its input channels (of a linear layer, input features) in the dense model,
            the filter of the root that it reads, or -1 where it reads something else, such as the rest of a
            concatenation. A reader without an entry reads the filters one after another, each of them as one channel or
            as equally many features in a row.
        fixed: filters of the root, of the dense model, that must stay.
        lanes: per linear layer that runs along the filters, doing the same for each (the token mixing of an MLP-Mixer):
            for each of its positions in an image, in the dense model, the filter of the root that it is, or -1.
        heads: whether the root is an attention, whose filters are its heads. It has no weights of its own: they are
            those of the layers that give queries, keys and values (`coupled`), several rows of each to a head.

    In a residual network whose first stage is 16 wide, `coupled` is the second convolutions of its blocks, each with
    the map (0, 1, ..., 15), and `columns` has the blocks' first convolutions with the same.
    """

    layer: str
    filters: int
    consumers: tuple[str, ...]
    inner: tuple[str, ...] = ()
    groups: int = 1
    gates: tuple[str, ...] = ()
    coupled: tuple[FilterMap, ...] = ()
    columns: tuple[FilterMap, ...] = ()
    fixed: tuple[int, ...] = ()
    lanes: tuple[FilterMap, ...] = ()
    heads: bool = False

    @property
    def owners(self) -> tuple[str, ...]:
        """The layers that own filters which go: the root first, then its gates and those that are coupled to it. Of an
        attention's heads, its layers alone.

        >>> PrunableUnit("conv1", 2, ("conv3",), gates=("gate",), coupled=(("conv2", (0, 1)),)).owners
        ('conv1', 'gate', 'conv2')
        """
        own = () if self.heads else (self.layer, *self.gates)
        return (*own, *(layer for layer, _ in self.coupled))

    @property
    def is_spread(self) -> bool:
        """Whether filters of several layers go together, or are read as a part of something: all over the network,
        perhaps.
        """
        return bool(self.coupled or self.columns or self.lanes)


@dataclass(frozen=True)
class PruningStep:
    """The units that are pruned together: those of one block. `number` counts from 1, shallow to deep."""

    number: int
    units: tuple[PrunableUnit, ...]

    @property
    def name(self) -> str:
        """The pruned layers, for people."""
        return " + ".join(unit.layer for unit in self.units)


def lanes_left(units: Iterable[PrunableUnit], layer: str, kept: Kept) -> tuple[int, ...] | None:
    """The positions of the dense network at which a layer still runs, if it runs along filters that may go; else None.

    Args:
        units: all of the network's.
        kept: as the network is now.
    """
    along = [(dict(unit.lanes)[layer], set(kept[unit.layer])) for unit in units if layer in dict(unit.lanes)]
    if not along:
        return None
    return tuple(
        position
        for position in range(len(along[0][0]))
        if all(roots[position] < 0 or roots[position] in own for roots, own in along)
    )


def all_kept(units: Iterable[PrunableUnit]) -> dict[str, tuple[int, ...]]:
    """What the dense network has."""
    return _by_owner(units, {unit.layer: tuple(range(unit.filters)) for unit in units})


def kept_without(units: Iterable[PrunableUnit], kept: Kept, removed: Kept) -> dict[str, tuple[int, ...]]:
    """What is left after a removal.

    Args:
        units: all of the network's.
        removed: by a unit's layer, indices of filters as the layer is now.
    """
    left = {}
    for unit in units:
        gone = set(removed.get(unit.layer, ()))
        left[unit.layer] = tuple(index for now, index in enumerate(kept[unit.layer]) if now not in gone)
    return _by_owner(units, left)


def _by_owner(units: Iterable[PrunableUnit], kept: Kept) -> dict[str, tuple[int, ...]]:
    """From the units' own layers to all that lose filters with them."""
    found: dict[str, tuple[int, ...]] = {}
    for unit in units:
        own = set(kept[unit.layer])
        for owner in (unit.layer, *unit.gates):
            found[owner] = tuple(kept[unit.layer])
        for owner, roots in unit.coupled:
            left = found.get(owner, range(len(roots)))  # some of a layer's filters may go with another unit
            found[owner] = tuple(index for index in left if roots[index] < 0 or roots[index] in own)
    return found


def rows_now(unit: PrunableUnit, kept: Kept) -> tuple[FilterMap, ...]:
    """The layers whose filters are a unit's own, its root first and gates left out: for each filter that such a layer
    has now, the place of the root's filter with which it goes as the root is now, or -1.

    Args:
        kept: as the network is now.
    """
    place = _places(unit, kept)
    own = () if unit.heads else ((unit.layer, tuple(range(len(place)))),)
    others = ((layer, tuple(place.get(roots[index], -1) for index in kept[layer])) for layer, roots in unit.coupled)
    return (*own, *others)


def columns_now(
    units: Iterable[PrunableUnit], unit: PrunableUnit, reader: str, kept: Kept, inputs: int
) -> tuple[int, ...] | None:
    """For each input channel (or feature) that a reader has now, the place of the filter that it reads, as the unit's
    layer is now, or -1 where it reads something else. None where it does not read whole filters in their order.

    Args:
        units: all of the network's.
        kept: as the network is now.
        inputs: how many the reader has now.
    """
    place = _places(unit, kept)
    found = dict(unit.columns).get(reader)
    if found is None:
        each, rest = divmod(inputs, len(place))
        return None if rest else tuple(now for now in range(len(place)) for _ in range(each))
    others = [(dict(other.columns)[reader], set(kept[other.layer])) for other in units if reader in dict(other.columns)]
    left = [
        root
        for column, root in enumerate(found)
        if all(roots[column] < 0 or roots[column] in own for roots, own in others)
    ]
    return tuple(place.get(root, -1) for root in left) if len(left) == inputs else None


def _places(unit: PrunableUnit, kept: Kept) -> dict[int, int]:
    """Where each filter that is left of a unit's layer is now."""
    return {index: now for now, index in enumerate(kept[unit.layer])}
