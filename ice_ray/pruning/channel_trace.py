"""Which channels of a network are one, followed through a forward pass: every channel that a layer gives has a label,
and operations move labels (a slice, a shuffle, a concatenation) or tie them (a sum, a product).

Torch-Pruning's graph has an edge for every operation and guesses from widths what a reshape does to channels. Here a
tensor of labels goes through the very reshape instead, beside every tensor of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ice_ray.models.answers import logits_of
from ice_ray.models.cifar import PaddedShortcut
from ice_ray.models.copies import leaving_nothing
from ice_ray.pruning.coupling import OUTPUTS
from ice_ray.pruning.layer_norm import layer_norm_dim
from ice_ray.pruning.response_norm import response_dim
from ice_ray.pruning.torch_pruning import cuts
from ice_ray.pruning.traced_operations import (
    AS_IT_IS,
    ELEMENTWISE,
    MAKES,
    MOVES,
    REDUCES,
    RESAMPLES,
    WORDS,
    Operation,
    along,
    narrowed,
    narrowed_together,
    varying_dims,
)

Side = Literal["gives", "reads", "each", "before", "after", "lanes", "size"]
Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Part:
    """A run of channels of a module, or of a bare parameter.

    Attributes:
        name: module path, or the name of a parameter or of a number.
        side: the channels are the filters that it gives; the inputs that it reads; each is treated by itself (a norm, a
            depthwise convolution, a bare parameter); they are zeros `before` and `after` those that it is given; the
            `lanes` (positions of an image) along which a linear layer runs, which does the same in each; or their
            number is an attribute of a module, to which its forward pass reshapes (`size`).
        labels: of each channel; 0 where it is no channel of any layer.
    """

    name: str
    side: Side
    labels: Labels


@dataclass
class ChannelTrace:
    """What a forward pass tells.

    Attributes:
        parts: of the network, in running order.
        classes: by label, the number of the channel that it is: labels that are tied have the same.
        held: by channel, why it cannot go.
        multiplied: labels that nothing but multiplications ties.
    """

    parts: list[Part] = field(default_factory=list)
    classes: Labels = field(default_factory=lambda: np.zeros(1, np.int64))
    held: dict[int, str] = field(default_factory=dict)
    multiplied: frozenset[int] = frozenset()

    def channels(self, part: Part) -> list[int]:
        """The channel that each of a part's is; -1 where it is none of any layer."""
        return [int(self.classes[label]) if label else -1 for label in part.labels]


def trace_channels(model: nn.Module, image_shape: tuple[int, int, int]) -> ChannelTrace:
    """Follow the channels of every layer through one image of zeros (C, H, W).

    Args:
        model: in eval mode; it is left as it is.
    """
    follower = _Follower(model)
    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad(), leaving_nothing(model), _Sizes(model, follower), follower.hooked(), follower:
        logits = logits_of(model(image))
    follower.hold(follower.labels_of(logits), OUTPUTS)
    return follower.found()


class _Follower(TorchDispatchMode):
    """Gives every tensor of a pass its labels, and notes what is tied."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to be skipped it would load torch's compiler, seconds of every process

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._labels: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []  # so that no two of them share an id
        self._count = 0
        self._within = 0
        self._parts: dict[tuple[str, Side], Part] = {}
        self._ties: list[tuple[Tensor, Tensor]] = []
        self._added: list[Tensor] = []
        self._held: list[tuple[Tensor, str]] = []
        self._alike: list[tuple[Tensor, Tensor, str]] = []
        dims = {id(module): _channel_dim(module) for module in model.modules()}
        self._channel_dims = {module: dim for module, dim in dims.items() if dim is not None}
        self._bare = {id(each): name for name, each in self._bare_parameters()}

    def found(self) -> ChannelTrace:
        """What the pass has told."""
        classes = self._joined()
        for labels, first, reason in self._alike:
            apart = torch.from_numpy(classes[labels] != classes[first])
            if bool(apart.any()):
                self.hold(labels, reason)
        held: dict[int, str] = {}
        for labels, reason in self._held:
            for label in np.unique(labels.numpy()):
                if label:
                    held.setdefault(int(classes[label]), reason)
        tied = {int(label) for pair in self._ties for labels in pair for label in np.unique(labels.numpy())}
        added = {int(label) for labels in self._added for label in np.unique(labels.numpy())}
        return ChannelTrace(list(self._parts.values()), classes, held, frozenset(tied - added))

    def _joined(self) -> Labels:
        pairs = [torch.stack([one.reshape(-1), other.reshape(-1)]).numpy() for one, other in self._ties]
        ends = np.unique(np.concatenate([np.zeros((2, 1), np.int64), *pairs], axis=1), axis=1)
        size = self._count + 1
        graph = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(size, size))
        classes: Labels = connected_components(graph, directed=False)[1].astype(np.int64)
        return classes

    # Labels of tensors

    def labels_of(self, tensor: Tensor) -> Tensor | None:
        """Those of a tensor's elements, of its shape; None where it holds no channel of any layer."""
        known = self._labels.get(id(tensor))
        if known is None and id(tensor) in self._bare and tensor.numel() > 1:
            known = self._fresh(tensor.numel()).view(tensor.shape)
            self._give(tensor, known)
            self._note(self._bare[id(tensor)], "each", known.reshape(-1))
        return known

    def _give(self, tensor: Tensor, labels: Tensor | None) -> None:
        if labels is None or not bool(labels.any()):
            return
        self._labels[id(tensor)] = narrowed(labels).expand(tensor.shape)
        self._alive.append(tensor)

    def _fresh(self, count: int) -> Tensor:
        self._count += count
        return torch.arange(self._count - count + 1, self._count + 1)

    def note_size(self, name: str, tensor: Tensor, dim: int) -> None:
        """A number that is the size of a tensor's dimension: it changes with the channels that lie along it."""
        labels = self.labels_of(tensor)
        if labels is not None and dim % labels.ndim in varying_dims(labels):
            own = labels.movedim(dim, -1).reshape(-1, labels.shape[dim])[0]
            self._note(name, "size", own)

    def _note(self, name: str, side: Side, labels: Tensor) -> None:
        """A part; met again, it is tied to what it was."""
        known = self._parts.get((name, side))
        if known is None:
            self._parts[name, side] = Part(name, side, labels.numpy().copy())
        else:
            self._tie(torch.from_numpy(known.labels), labels, f"{name}, which runs twice")

    def hold(self, labels: Tensor | None, reason: str) -> None:
        """Channels that cannot go."""
        if labels is not None:
            self._held.append((narrowed(labels).reshape(-1), reason))

    def _tie(self, one: Tensor, other: Tensor, operation: str, multiplies: bool = False) -> None:
        """Channels that go together; what meets no channel cannot go."""
        both = (one > 0) & (other > 0)
        if bool(both.any()):
            pair = (one[both], other[both])
            self._ties.append(pair)
            if not multiplies:
                self._added.extend(pair)
        for given, beside in ((one, other), (other, one)):
            alone = given[(given > 0) & (beside == 0)]
            if len(alone):
                self._held.append((alone, f"{operation} joins it to what no layer's filters give"))

    def _tie_along(self, labels: Tensor, dim: int, operation: str) -> Tensor:
        """Labels with those along a dimension tied to the first."""
        first = labels.select(dim, 0).unsqueeze(dim)
        if labels.shape[dim] > 1:
            one, other = torch.broadcast_tensors(first, labels.narrow(dim, 1, labels.shape[dim] - 1))
            self._tie(one, other, operation)
        return first.expand(labels.shape)

    def _rectangular(self, labels: Tensor, operation: str, keep: int | None = None) -> Tensor:
        """Labels that vary along one dimension alone, the longest: what is cut must leave equally long rows."""
        varying = varying_dims(labels)
        if len(varying) > 1:
            keep = max(varying, key=lambda dim: labels.shape[dim]) if keep is None else keep
            for dim in varying:
                if dim != keep:
                    labels = self._tie_along(labels, dim, operation)
        return labels

    # Modules

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """While the block runs, layers and norms tell what they read and give."""
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                if (rule := _rule_of(module)) is not None:
                    before, after = self._around(name, rule)
                    stack.callback(module.register_forward_pre_hook(before).remove)
                    stack.callback(module.register_forward_hook(after).remove)
            yield

    def _around(self, name: str, rule: _Rule) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(*_: object) -> None:
            self._within += 1

        def after(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            self._within -= 1
            if not self._within:
                tensors = [each for each in given if isinstance(each, Tensor)]
                labels = [self.labels_of(each) for each in tensors]
                result = rule(self, name, module, labels, output)
                if isinstance(output, Tensor):
                    self._give(output, result)

        return before, after

    def _bare_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of modules that no rule is for."""
        ruled = [module for module in self._model.modules() if _rule_of(module) is not None]
        within = {id(parameter) for module in ruled for parameter in module.parameters()}
        yield from ((name, each) for name, each in self._model.named_parameters() if id(each) not in within)

    def channels_at(self, labels: Tensor | None, dim: int, name: str) -> Tensor | None:
        """The labels along a dimension, which must be the same at all of its positions."""
        if labels is None:
            return None
        others = [each for each in varying_dims(labels) if each != dim % labels.ndim]
        if others:
            self.hold(labels, f"{name} reads them in an order that cannot be followed")
        for each in range(labels.ndim):
            if each != dim % labels.ndim:
                labels = labels.narrow(each, 0, 1)
        return labels.reshape(-1)

    def layer(self, name: str, module: nn.Module, labels: list[Tensor | None], output: Tensor) -> Tensor | None:
        """A convolution or linear layer."""
        if isinstance(module, nn.Linear) and (lanes := _lanes_of(labels[0] if labels else None)) is not None:
            self._note(name, "lanes", lanes.reshape(-1))
            return lanes.expand(output.shape)
        dim, groups, is_depthwise = -1, 1, False
        if isinstance(module, nn.Conv2d):
            dim, groups = output.ndim - 3, module.groups
            # A grouped one that has one input a group left is none: its outputs can go one by one.
            is_depthwise = groups == module.in_channels == module.out_channels > 1
        read = self.channels_at(labels[0] if labels else None, dim, name)
        width = output.shape[dim]
        if is_depthwise:
            if read is None:
                return None
            self._note(name, "each", read)
            return along(read, output, dim)
        if groups > 1 and read is not None:
            self._tie_along(read.view(groups, -1), 0, f"{name}, whose groups must stay equal,")
        if read is not None:
            self._note(name, "reads", read)
        if width == 1:
            return None  # the only filter of a layer stays, and multiplies or is added to any number of others
        known = self._parts.get((name, "gives"))
        given = self._fresh(width) if known is None else torch.from_numpy(known.labels)
        self._note(name, "gives", given)
        if groups > 1:
            self._tie_along(given.view(groups, -1), 0, f"{name}, whose groups must stay equal,")
        own = {**module._parameters, **module._buffers}
        for tensor_name, tensor in own.items():
            if tensor is not None and tensor_name not in ("weight", "bias") and width in tensor.shape:
                self.hold(
                    given, f"{name} has {tensor_name} beside its weight, which nothing would cut with its filters"
                )
        return along(given, output, dim)

    def norm(self, name: str, module: nn.Module, labels: list[Tensor | None], output: Tensor) -> Tensor | None:
        """What treats every channel by itself, with tensors of its own."""
        read = self.channels_at(labels[0], self._channel_dims.get(id(module), min(1, output.ndim - 1)), name)
        if read is None or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            return labels[0]
        if isinstance(module, nn.GroupNorm):
            self._tie_along(read.view(module.num_groups, -1), 0, f"{name}, whose groups must stay equal,")
        self._note(name, "each", read)
        return labels[0]

    def layer_norm(self, name: str, module: nn.LayerNorm, labels: list[Tensor | None], _: Tensor) -> Tensor | None:
        """One that is none over channels alone, or has no weight that could make up for their number."""
        what = "a layer norm without weights" if module.weight is None else "a layer norm over more than channels"
        self.hold(labels[0], f"{name}, {what}, divides each by all of them together")
        return labels[0]

    def attention(self, name: str, _: nn.Module, labels: list[Tensor | None], __: object) -> None:
        """Torch's own attention, whose weights are used outside of its layers."""
        for each in labels:
            self.hold(each, f"{name}, an attention, reads them")

    def padding(self, name: str, module: nn.Module, labels: list[Tensor | None], output: Tensor) -> Tensor | None:
        """Zeros before and after channels, whose numbers can be changed."""
        read = self.channels_at(labels[0], 1, name)
        if read is None:
            return None
        assert isinstance(module, PaddedShortcut)
        before, after = self._fresh(module.before), self._fresh(module.after)
        self._note(name, "before", before)
        self._note(name, "after", after)
        return along(torch.cat([before, read, after]), output, 1)

    # Operations

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        keywords = dict(kwargs or {})
        result = func(*args, **keywords)
        if self._within:
            return result
        arguments = [*args, *keywords.values()]
        flat = [each for given in arguments for each in (given if isinstance(given, (list, tuple)) else [given])]
        labels = [self.labels_of(each) if isinstance(each, Tensor) else None for each in flat]
        if any(each is not None for each in labels):
            given = Operation(func, args, keywords, flat, labels, result)
            outputs = result if isinstance(result, (tuple, list)) else [result]
            try:
                found = self._outcome(given)
            except (RuntimeError, ValueError, IndexError, TypeError):  # arguments of a kind that no rule knows
                found = []
                for each in labels:
                    self.hold(each, f"the operation {given.name} reads them in a way that cannot be followed")
            for tensor, own in zip(outputs, found, strict=False):
                if isinstance(tensor, Tensor):
                    self._give(tensor, own)
        return result

    def _outcome(self, given: Operation) -> Sequence[Tensor | None]:
        name = given.name
        if name == "roll" and not {int(each) % given.first.ndim for each in given.dims} & set(
            varying_dims(given.first)
        ):
            return [given.first]  # of positions alone
        if name in AS_IT_IS or (name == "as_strided" and given.is_row):
            return [given.first]
        if name in MAKES:
            return []
        if name in MOVES:
            return self._moved(given)
        if name in RESAMPLES:
            return self._resampled(given)
        if name in REDUCES:
            return self._reduced(given)
        if name in ("_softmax", "_log_softmax"):
            dim = int(given.flat[1])
            first = given.first.select(dim, 0).unsqueeze(dim).expand(given.first.shape)
            self._alike.append((given.first, first, "a softmax over its channels couples it to others"))
            return [given.first]
        if name == "constant_pad_nd":
            return [self._padded(given)]
        if torch.Tag.pointwise in given.func.tags or name in ELEMENTWISE:
            return [self._elementwise(given)]
        for each in given.labels:
            self.hold(each, f"{WORDS.get(name, f'the operation {name}')} reads them")
        return []

    def _elementwise(self, given: Operation) -> Tensor | None:
        shape = given.result.shape
        operands = [
            (tensor, torch.zeros(tensor.shape, dtype=torch.int64) if labels is None else labels)
            for tensor, labels in zip(given.flat, given.labels, strict=True)
            if labels is not None or (isinstance(tensor, Tensor) and tensor.numel() > 1)
        ]
        # What varies least first: a bare parameter has a label for each of its elements.
        operands.sort(key=lambda each: (not bool(each[1].any()), len(varying_dims(each[1]))))
        multiplies = given.name in ("mul", "div")
        result = operands[0][1].expand(shape)
        for tensor, labels in operands[1:]:
            one, other = result, labels.expand(shape)
            spans = [dim for dim in range(1 - len(shape) - 1, 0) if -dim <= tensor.ndim and tensor.shape[dim] > 1]
            varying = {dim - len(shape) for dim in varying_dims(result)}
            if not bool(labels.any()) and not varying & set(spans):
                continue  # one number for all of the channels
            operation = WORDS.get(given.name, f"the operation {given.name}")
            mine, theirs = narrowed_together(one, other)
            self._tie(mine, theirs, operation, multiplies)
            result = torch.where(one > 0, one, other)
        return result

    def _moved(self, given: Operation) -> Sequence[Tensor | None]:
        name, first = given.name, given.first
        words = WORDS.get(name, f"the operation {name}")
        if name in ("view", "_unsafe_view", "reshape", "_reshape_alias"):
            return [self._rectangular(first.reshape(given.result.shape), "a reshape")]
        if name in ("cat", "stack"):
            joined = given.again()
            assert isinstance(joined, Tensor)
            dim = given.dim % joined.ndim
            varying = [each for each in varying_dims(joined) if each != dim]
            if varying and dim in varying_dims(joined):
                joined = self._rectangular(joined, words, max(varying, key=lambda each: joined.shape[each]))
            return [joined]
        if name in ("split", "split_with_sizes", "unbind", "slice", "select", "index", "index_select"):
            return self._taken(given, words)
        if name in ("channel_shuffle", "pixel_shuffle"):
            count = int(given.flat[1])
            dim, runs = first.ndim - 3, (count, -1) if name == "channel_shuffle" else (-1, count**2)
            self._tie_along(first.unflatten(dim, runs), dim if name == "channel_shuffle" else dim + 1, words)
        result = given.again()
        return [result] if isinstance(result, Tensor) else list(result)

    def _taken(self, given: Operation, words: str) -> Sequence[Tensor | None]:
        """A part of a tensor, or several: of its channels only equal runs may be taken, and go alike."""
        first = given.first
        result = given.again()
        parts = [result] if isinstance(result, Tensor) else list(result)
        dim = given.dim % first.ndim
        if dim not in varying_dims(first) and given.name != "index":
            return parts
        if given.name in ("split", "split_with_sizes") and len({each.shape[dim] for each in parts}) == 1:
            runs = first.unflatten(dim, (len(parts), -1))
        elif given.name == "slice" and parts[0].shape == first.shape:
            return parts
        elif given.name == "slice" and first.shape[dim] % parts[0].shape[dim] == 0 and given.starts_a_run:
            runs = first.unflatten(dim, (first.shape[dim] // parts[0].shape[dim], -1))
        else:
            if len(varying_dims(first)):
                self.hold(first, f"{words} takes some of them by their numbers")
            return parts
        self._tie_along(runs, dim, words)
        return parts

    def _padded(self, given: Operation) -> Tensor | None:
        amounts, first = list(given.flat_list), given.first
        sizes = [(amounts[2 * each], amounts[2 * each + 1]) for each in range(len(amounts) // 2)]
        for number, (before, after) in enumerate(sizes):
            dim = first.ndim - 1 - number
            if dim not in varying_dims(first):
                if before > 0 or after > 0:
                    shape = [*first.shape]
                    shape[dim] += before + after
                    first = first.narrow(dim, 0, 1).expand(shape)
                elif before or after:
                    first = first.narrow(dim, 0, first.shape[dim] + before + after)
                continue
            if before < 0 or after < 0:
                self.hold(first, "a crop takes some of them by their numbers")
                return None
            zeros = self._fresh(before + after)
            self.hold(zeros, "a padding with a number of zero channels that its forward pass holds")
            shape = [1] * first.ndim
            shape[dim] = -1
            rest = [*first.shape]
            ends = []
            for count, run in ((before, zeros[:before]), (after, zeros[before:])):
                rest[dim] = count
                ends.append(run.view(shape).expand(rest))
            first = torch.cat([ends[0], first, ends[1]], dim)
        return first

    def _resampled(self, given: Operation) -> Sequence[Tensor | None]:
        first = given.first
        results = given.result if isinstance(given.result, (tuple, list)) else [given.result]
        if {first.ndim - 1, first.ndim - 2} & set(varying_dims(first)):
            self.hold(first, f"the operation {given.name} mixes them")
            return []
        first = first[..., :1, :1]
        return [first.expand(*first.shape[:-2], *each.shape[-2:]) for each in results]

    def _reduced(self, given: Operation) -> Sequence[Tensor | None]:
        first, name = given.first, given.name
        dims = given.reduced_dims
        varying = set(varying_dims(first)) & set(dims)
        if varying:
            if name == "sum" and set(varying_dims(first)) - varying:
                for dim in varying:
                    first = self._tie_along(first, dim, "a sum")
            else:
                self.hold(first, f"{WORDS.get(name, f'the operation {name}')} goes over its channels")
        for dim in sorted(dims, reverse=True):
            first = first.narrow(dim, 0, 1)
            if not given.keeps_dims:
                first = first.squeeze(dim)
        count = len(given.result) if isinstance(given.result, (tuple, list)) else 1
        return [first] * count


class _Size(int):
    """A number that a module holds, with its name."""

    name: str


class _Sizes(TorchFunctionMode):
    """Tells of numbers that modules hold and by which their forward passes reshape or split tensors. While it watches,
    the numbers know their names.
    """

    def __init__(self, model: nn.Module, follower: _Follower) -> None:
        super().__init__()
        self._follower = follower
        for path, module in model.named_modules():
            for name, value in list(vars(module).items()) if _rule_of(module) is None else ():
                if type(value) is int and value > 1:
                    module.__dict__[name] = own = _Size(value)
                    own.name = f"{path}.{name}" if path else name

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        if name in ("reshape", "view"):
            sizes = [each for own in args[1:] for each in (own if isinstance(own, (list, tuple)) else [own])]
            for dim, size in enumerate(sizes):
                if isinstance(size, _Size):
                    self._follower.note_size(size.name, result, dim)
        elif name == "split" and len(args) > 1 and isinstance(args[1], _Size):
            dim = (kwargs or {}).get("dim", args[2] if len(args) > 2 else 0)
            self._follower.note_size(args[1].name, result[0], dim)
        return result


def _lanes_of(labels: Tensor | None) -> Tensor | None:
    """Labels that are the same along the last dimension and vary along others, without the last (of size 1)."""
    varying = [] if labels is None else varying_dims(labels)
    if labels is None or not varying or labels.ndim - 1 in varying:
        return None
    return labels.narrow(-1, 0, 1)


_Rule = Callable[["_Follower", str, Any, list[Any], Any], Any]


def _rule_of(module: nn.Module) -> _Rule | None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return _Follower.layer
    if isinstance(module, nn.MultiheadAttention):
        return _Follower.attention
    if isinstance(module, PaddedShortcut):
        return _Follower.padding
    if isinstance(module, (_BatchNorm, nn.GroupNorm, nn.PReLU)) or cuts(module) or _channel_dim(module) is not None:
        return _Follower.norm
    if isinstance(module, nn.LayerNorm):
        return _Follower.layer_norm
    return None


def _channel_dim(module: nn.Module) -> int | None:
    """Where a norm that is told by what it computes has its channels."""
    dim = response_dim(module)
    return layer_norm_dim(module) if dim is None else dim
