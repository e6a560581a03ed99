"""Coupled sets of channels: which filters of several layers go together, and how they are cut out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ice_ray.models.cifar import PaddedShortcut
from ice_ray.models.units import FilterMap
from ice_ray.pruning.channel_trace import ChannelTrace, Part
from ice_ray.pruning.coupling import Coupling
from ice_ray.pruning.layer_norm import keep_scale, layer_norm_dim
from ice_ray.pruning.response_norm import keep_response, response_dim

Channels = Mapping[Part, Sequence[int]]


def coupled_sets(trace: ChannelTrace) -> dict[str, Coupling | str]:
    """By layer that owns filters, in running order: the set whose root it is; or, in words, why it is no root."""
    channels = {part: trace.channels(part) for part in trace.parts}
    owners = {part.name: part for part in trace.parts if part.side == "gives"}
    found: dict[str, Coupling | str] = {}
    for members in _components(trace, channels, owners.values()):
        root = max(members, key=lambda part: len(part.labels))  # the first of the widest
        coupling = _coupling(trace, channels, root, members)
        for part in members:
            found[part.name] = coupling if part is root else f"it goes with {root.name}, to which it is coupled"
            if isinstance(coupling, str):
                found[part.name] = coupling
    return {name: found[name] for name in owners}


def _components(trace: ChannelTrace, channels: Channels, owners: Iterable[Part]) -> list[list[Part]]:
    """The owners, those together that share a channel which may go."""
    sets: list[tuple[set[int], list[Part]]] = []
    for part in owners:
        own, members = {each for each in channels[part] if each not in trace.held}, [part]
        apart = []
        for others, theirs in sets:
            if own & others:
                own, members = own | others, theirs + members
            else:
                apart.append((others, theirs))
        sets = [*apart, (own, members)]
    order = {part.name: number for number, part in enumerate(trace.parts)}
    return [sorted(members, key=lambda part: order[part.name]) for _, members in sets]


def _coupling(trace: ChannelTrace, channels: Channels, root: Part, members: Sequence[Part]) -> Coupling | str:
    own = list(channels[root])
    if all(each in trace.held for each in own):
        return trace.held[own[0]]
    groups = _runs_of(own)
    if groups is None:
        return "its filters are tied to each other in an order that cannot be followed"
    if len(own) < 2 * groups:
        return f"its filters are tied to each other: it has {len(own)} in {groups} runs that go alike"
    filter_of = _FilterOf(own, groups)
    free = {each for each in own if each not in trace.held}
    touched = [part for part in trace.parts if free & set(channels[part])]
    readers = [part for part in touched if part.side == "reads"]
    if not readers:
        return "nothing reads its filters that could do with fewer"
    kept = {each for each in own if each in trace.held} | _spared(touched, channels, free, set(own))
    fixed = tuple(number for number, each in enumerate(own) if each in kept)
    if len(fixed) == len(own):
        return "each of its filters is needed, for one of the layers that go with it has no other"
    lanes = tuple((part.name, filter_of.each(channels[part])) for part in touched if part.side == "lanes")
    for layer, filters in lanes:
        if len(set(Counter(each for each in filters if each >= 0).values())) > 1 or not set(own) <= free:
            return f"{layer} runs along some of its filters and not along others"
    gates = tuple(part.name for part in members if part is not root and _gates(trace, channels, root, part))
    coupled = [part for part in members if part is not root and part.name not in gates]
    columns = [(part.name, filter_of.each(channels[part])) for part in readers]
    return Coupling(
        root.name,
        len(own),
        tuple(part.name for part in readers),
        gates,
        groups,
        tuple(dict.fromkeys(part.name for part in (root, *touched) if part.side not in ("lanes", "size"))),
        tuple((part.name, filter_of.each(channels[part])) for part in coupled),
        tuple(each for each in columns if not _in_order(each, len(own))),
        fixed,
        lanes,
    )


def _runs_of(channels: Sequence[int]) -> int | None:
    """In how many equal runs the same channels are, one after another; None where it is otherwise."""
    run = len(dict.fromkeys(channels))
    groups, rest = divmod(len(channels), run)
    return groups if not rest and all(channels[i] == channels[i % run] for i in range(len(channels))) else None


class _FilterOf:
    """From channels to filters of the root: where several of these are one channel, each in its turn."""

    def __init__(self, channels: Sequence[int], groups: int) -> None:
        self._run = len(channels) // groups
        self._places = {channel: number for number, channel in enumerate(channels[: self._run])}
        self._groups = groups

    def each(self, channels: Sequence[int]) -> tuple[int, ...]:
        seen: dict[int, int] = defaultdict(int)
        filters = []
        for channel in channels:
            place = self._places.get(channel, -1)
            filters.append(place if place < 0 else place + seen[channel] % self._groups * self._run)
            seen[channel] += 1
        return tuple(filters)


def _in_order(columns: FilterMap, filters: int) -> bool:
    """Whether a reader reads the filters one after another, as a unit's readers do without an entry."""
    features, rest = divmod(len(columns[1]), filters)
    return not rest and columns[1] == tuple(number // features for number in range(len(columns[1])))


def _spared(touched: Iterable[Part], channels: Channels, free: set[int], every: set[int]) -> set[int]:
    """Channels that stay so that nothing which has but some of them is left without any."""
    spared: set[int] = set()
    for part in sorted(touched, key=lambda part: len(part.labels)):
        own = set(channels[part])
        if part.side not in ("before", "after") and own <= free and own != every and not own & spared:
            spared.add(channels[part][0])
    return spared


def _gates(trace: ChannelTrace, channels: Channels, root: Part, part: Part) -> bool:
    """Whether a layer does nothing but multiply the root's filters, one by one."""
    return list(channels[part]) == list(channels[root]) and all(int(each) in trace.multiplied for each in part.labels)


def channels_of(trace: ChannelTrace, removed: Mapping[str, Sequence[int]]) -> set[int]:
    """The channels that go with filters of layers.

    Raises:
        ValueError: a layer without filters that could go, or a filter that must stay.
    """
    owners = {part.name: trace.channels(part) for part in trace.parts if part.side == "gives"}
    gone: set[int] = set()
    for layer, filters in removed.items():
        if layer not in owners:
            raise ValueError(f"layer '{layer}' has no filters that could go")
        for number in filters:
            channel = owners[layer][number]
            if channel in trace.held:
                raise ValueError(f"filter {number} of layer '{layer}' must stay: {trace.held[channel]}")
            gone.add(channel)
    return gone


def columns_of(trace: ChannelTrace, gone: Collection[int]) -> dict[str, list[int]]:
    """Per reader, the input channels that go."""
    return {
        part.name: places for part in trace.parts if part.side == "reads" and (places := _places(trace, part, gone))
    }


def layer_norms_of(model: nn.Module, trace: ChannelTrace, gone: Collection[int]) -> dict[str, Tensor]:
    """The layer norms that lose channels: (channels,) bool, which."""
    found, modules = {}, dict(model.named_modules())
    for part in trace.parts:
        if part.side == "each" and part.name in modules and layer_norm_dim(modules[part.name]) is not None:
            lost = torch.tensor([channel in gone for channel in trace.channels(part)])
            if bool(lost.any()):
                found[part.name] = lost
    return found


def cut_out(model: nn.Module, trace: ChannelTrace, gone: Collection[int]) -> None:
    """Take channels out of everything that has them, in place."""
    for part in trace.parts:
        places = set(_places(trace, part, gone))
        if not places or part.side == "lanes":
            continue
        kept = torch.tensor([number for number in range(len(part.labels)) if number not in places])
        if part.side in ("before", "after"):
            shortcut = model.get_submodule(part.name)
            assert isinstance(shortcut, PaddedShortcut)
            setattr(shortcut, part.side, len(kept))
            continue
        path, _, own = part.name.rpartition(".")
        holder = model.get_submodule(path)
        if part.side == "size":
            setattr(holder, own, len(kept))
            continue
        if own in holder._parameters:
            _cut_parameter(holder, own, trace, part, gone)
            continue
        module = model.get_submodule(part.name)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            _cut_layer(module, part, kept)
        else:
            _cut_norm(module, len(part.labels), kept)


def _places(trace: ChannelTrace, part: Part, gone: Collection[int]) -> list[int]:
    return [number for number, channel in enumerate(trace.channels(part)) if channel in gone]


def _cut_layer(module: nn.Conv2d | nn.Linear, part: Part, kept: Tensor) -> None:
    width = len(kept)
    if part.side == "reads":
        groups = module.groups if isinstance(module, nn.Conv2d) else 1
        _take(module, "weight", 1, kept[: width // groups])  # of every group the same places
        setattr(module, "in_channels" if isinstance(module, nn.Conv2d) else "in_features", width)
        return
    if part.side == "each":
        assert isinstance(module, nn.Conv2d)  # depthwise
        module.in_channels = module.groups = width
    for name in ("weight", "bias"):
        if module._parameters.get(name) is not None:
            _take(module, name, 0, kept)
    setattr(module, "out_channels" if isinstance(module, nn.Conv2d) else "out_features", width)


def _cut_norm(module: nn.Module, width: int, kept: Tensor) -> None:
    if response_dim(module) is not None:
        keep_response(module, width, len(kept))
    if layer_norm_dim(module) is not None:
        keep_scale(module, width, len(kept))
    own = {**module._parameters, **module._buffers}
    for name, tensor in own.items():
        if tensor is not None and tensor.ndim and len(tensor) == width:
            _take(module, name, 0, kept)
    for name in ("num_features", "num_channels", "num_parameters"):
        if hasattr(module, name):
            setattr(module, name, len(kept))


def _cut_parameter(holder: nn.Module, name: str, trace: ChannelTrace, part: Part, gone: Collection[int]) -> None:
    """A bare parameter, along the dimension in which its channels lie."""
    tensor = holder.get_parameter(name)
    lost = torch.tensor([channel in gone for channel in trace.channels(part)]).view(tensor.shape)
    for dim in range(tensor.ndim):
        others = [each for each in range(tensor.ndim) if each != dim]
        if torch.equal(lost.all(dim=others), lost.any(dim=others)) if others else True:
            along = lost.any(dim=others) if others else lost
            _take(holder, name, dim, (~along).nonzero()[:, 0])
            return
    raise ValueError(f"parameter '{name}' holds them in an order that cannot be followed")


def _take(module: nn.Module, name: str, dim: int, kept: Tensor) -> None:
    """Leave of a tensor these places along a dimension."""
    tensor = getattr(module, name)
    left = tensor.detach().index_select(dim, kept.to(tensor.device))
    if name in module._parameters:
        left = nn.Parameter(left, requires_grad=tensor.requires_grad)
    setattr(module, name, left)
