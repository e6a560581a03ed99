"""Attention heads: which rows of which layers, columns of the projection behind and other tensors belong to which head.

Found by gradients in a copy of the attention's module: what a head's inputs of the output projection depend on, and no
other head's do, is that head's. So queries, keys and values may come from one layer or from several, in any order, with
position biases, scales or norms for each head. Which of the module's numbers (`num_heads`, `attn_dim`) change with the
heads is tried: heads that are not heard any more must be able to go without changing what the projection gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.models.attention import NUMBERS_OF_HEADS, number_of_heads, objection_to, with_open_heads
from ice_ray.models.copies import copied, leaving_nothing
from ice_ray.models.partial_forward import Reached
from ice_ray.models.units import FilterMap
from ice_ray.pruning.coupling import Coupling
from ice_ray.randomness import generator

_OF_INPUT = ("dim", "embed_dim", "in_dim", "input_dim", "d_model", "hidden_size", "in_features", "in_channels")
"""What modules call the width of what they read, which may be that of their heads together, too."""
_TOLERANCE = 1e-6
_LAYERS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class Cut:
    """A tensor that heads have parts of.

    Attributes:
        name: its path.
        dim: along which it is cut.
        heads: for each slice along it the head that it belongs to, or -1.
        layer: the path of the convolution or linear layer whose weight it is, if it is one.
    """

    name: str
    dim: int
    heads: tuple[int, ...]
    layer: str = ""


@dataclass(frozen=True)
class Heads:
    """The heads of an attention as it is now.

    Attributes:
        attention: path of its module.
        count: how many.
        projection: path of the layer that reads them.
        cuts: all tensors that are cut with them, the projection's among them.
        numbers: (path of a module, name of an attribute), which grow in proportion to the number of heads.
    """

    attention: str
    count: int
    projection: str
    cuts: tuple[Cut, ...]
    numbers: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[int, ...]:
        """For each input of the projection the head that it comes from."""
        return next(cut.heads for cut in self.cuts if cut.name == f"{self.projection}.weight")

    @property
    def rows(self) -> tuple[FilterMap, ...]:
        """The layers that own rows of heads, with the head of each of their filters, or -1."""
        return tuple((layer, cut.heads) for cut in self.cuts if (layer := cut.layer) and not cut.dim)

    @property
    def coupling(self) -> Coupling:
        """What goes when heads go."""
        touched = dict.fromkeys(cut.name.rpartition(".")[0] for cut in self.cuts)
        return Coupling(
            self.attention,
            self.count,
            (self.projection,),
            (),
            1,
            tuple(touched),
            self.rows,
            ((self.projection, self.columns),),
            heads=True,
        )


def attentions(model: nn.Module) -> dict[str, int]:
    """Modules that have heads, by path, and how many: the innermost that have layers, too."""
    found = {
        path: count
        for path, module in model.named_modules()
        if (count := number_of_heads(module)) is not None
        and any(isinstance(each, _LAYERS) for each in module.modules())
    }
    return {path: count for path, count in found.items() if not any(other.startswith(f"{path}.") for other in found)}


def find_heads(
    model: nn.Module, image_shape: tuple[int, int, int], only: Sequence[str] | None = None
) -> dict[str, Heads | str]:
    """The heads of the attentions of a network; or, in words, why they cannot go.

    Args:
        model: left as it is; its attentions may be closed (`with_open_heads`), and the answer is of open ones.
        only: paths of modules to look at. [default: all that have heads]
    """
    wanted = {path: count for path, count in attentions(model).items() if only is None or path in only}
    found: dict[str, Heads | str] = {}
    for path in list(wanted):
        if (why := _objection(model.get_submodule(path), wanted[path])) is not None:
            found[path] = why
            del wanted[path]
    if not wanted:
        return found
    probe = copied(model).train(False)
    with_open_heads(probe, list(wanted))
    calls = _calls(probe, image_shape, list(wanted))
    known: dict[object, Heads | str] = {}
    for path, count in wanted.items():
        if path not in calls:
            found[path] = "the model does not run it"
            continue
        own = probe.get_submodule(path)
        alike = _signature(own, calls[path])
        if alike not in known:
            known[alike] = _Attention(own, calls[path], count).heads()
        answer = known[alike]
        found[path] = _below(path, answer) if isinstance(answer, Heads) else answer
    return {path: found[path] for path in attentions(model) if path in found}


def cut_heads(model: nn.Module, heads: Heads, gone: Sequence[int]) -> None:
    """Take heads out of a network, in place.

    Args:
        model: whose attention is open (`with_open_heads`).
        gone: which, as they are now.
    """
    lost, left = set(gone), heads.count - len(set(gone))
    for cut in heads.cuts:
        path, _, name = cut.name.rpartition(".")
        owner = model.get_submodule(path)
        tensor = getattr(owner, name)
        kept = torch.tensor([index for index, head in enumerate(cut.heads) if head not in lost], device=tensor.device)
        shorter = tensor.detach().index_select(cut.dim, kept)
        if name in owner._parameters:
            owner._parameters[name] = nn.Parameter(shorter, requires_grad=tensor.requires_grad)
        else:
            owner._buffers[name] = shorter
        _resize(owner)
    for path, name in heads.numbers:
        owner = model.get_submodule(path)
        setattr(owner, name, getattr(owner, name) // heads.count * left)
    for module in model.get_submodule(heads.attention).modules():
        _forget(module)


def silence_heads(model: nn.Module, heads: Heads, gone: Sequence[int]) -> None:
    """Let nothing read some heads of an open attention, in place."""
    projection, lost = model.get_submodule(heads.projection), set(gone)
    with torch.no_grad():
        projection.get_parameter("weight")[:, [index for index, head in enumerate(heads.columns) if head in lost]] = 0


def _objection(module: nn.Module, count: int) -> str | None:
    if count < 2:
        return "it has a single head"
    if isinstance(module, nn.MultiheadAttention) and (why := objection_to(module)) is not None:
        return why
    return None


_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _calls(probe: nn.Module, image_shape: tuple[int, int, int], paths: Sequence[str]) -> dict[str, _Call]:
    """What modules are given when they first run in a pass of the network; in the place of numbers, random ones: in
    trained networks tokens may be all alike.
    """
    found: dict[str, _Call] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # One tensor that is given twice stays one: an attention may ask whether its keys are its queries.
            seen: dict[int, Tensor] = {}
            taken = [_taken(each, seen) for each in args], {name: _taken(each, seen) for name, each in kwargs.items()}
            found.setdefault(path, (tuple(taken[0]), taken[1]))

        return hook

    handles = [probe.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True) for path in paths]
    images = torch.zeros(1, *image_shape)
    try:
        with torch.no_grad(), leaving_nothing(probe):
            probe(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _taken(value: Any, seen: dict[int, Tensor]) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        own = torch.randn(value.shape, generator=generator("attention"), dtype=torch.float64)
    else:
        own = value.detach().clone()
    return seen.setdefault(id(value), own)


def _signature(module: nn.Module, call: _Call) -> object:
    """The same for modules that have their heads in the same places."""
    parts = [
        (
            path,
            type(each),
            tuple((name, value) for name, value in vars(each).items() if isinstance(value, (int, float, str, tuple))),
            tuple((name, tensor.shape) for name, tensor in each.named_parameters(recurse=False)),
            tuple((name, tensor.shape) for name, tensor in each.named_buffers(recurse=False)),
        )
        for path, each in module.named_modules()
    ]
    given = [each.shape if isinstance(each, Tensor) else type(each) for each in (*call[0], *call[1].values())]
    return repr(parts), repr(given)


def _below(path: str, heads: Heads) -> Heads:
    """From paths within the attention's module to those within the network."""

    def whole(own: str) -> str:
        return f"{path}.{own}" if own else path

    cuts = tuple(replace(cut, name=whole(cut.name), layer=cut.layer and whole(cut.layer)) for cut in heads.cuts)
    numbers = tuple((whole(owner), name) for owner, name in heads.numbers)
    return Heads(path, heads.count, whole(heads.projection), cuts, numbers)


class _Attention:
    """A module that has heads, by itself, in double precision; all paths are within it."""

    def __init__(self, module: nn.Module, call: _Call, count: int) -> None:
        self._module, self._count = copied(module), count
        self._module.double()
        self._module.eval()  # a module's own may return nothing
        _draw(self._module)
        self._args, self._kwargs = call
        norms = [each for each in self._module.modules() if isinstance(each, _BatchNorm)]
        statistics = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
        named = (*self._module.named_parameters(), *self._module.named_buffers())
        self._tensors = {
            name: each.requires_grad_()
            for name, each in named
            if each.is_floating_point() and id(each) not in statistics and each.ndim
        }

    def heads(self) -> Heads | str:
        why = "no layer in it reads its heads side by side, each as its attention gave it"
        for projection in reversed(self._readers()):
            cuts = self._cuts(projection)
            if isinstance(cuts, str):
                why = cuts
            elif cuts:
                return self._tried(projection, cuts)
        return why

    def _readers(self) -> list[str]:
        """Layers that may be the projection, in the order in which they run."""
        order: list[str] = []
        names = {module: name for name, module in self._module.named_modules() if isinstance(module, _LAYERS)}
        handles = [module.register_forward_hook(lambda own, _, __: order.append(names[own])) for module in names]
        try:
            with torch.no_grad(), leaving_nothing(self._module):
                self._module(*self._args, **self._kwargs)
        finally:
            for handle in handles:
                handle.remove()
        whole = {name: module.weight for module, name in names.items() if getattr(module, "groups", 1) == 1}
        return [name for name in dict.fromkeys(order) if name in whole and _width(whole[name]) % self._count == 0]

    def _cuts(self, projection: str) -> tuple[Cut, ...] | str:
        """Empty where what the layer reads is no heads'."""
        given = self._read_by(projection)
        if given is None:
            return ()
        layer = self._module.get_submodule(projection)
        dim = given.ndim - 1 if isinstance(layer, nn.Linear) else 1
        size = given.shape[dim] // self._count
        noise = torch.randn(given.shape, generator=generator("attention", projection), dtype=given.dtype)
        weighted = (given * noise).movedim(dim, -1)
        if not self._attends(weighted, size):
            return ()
        touched = [self._touched(weighted[..., head * size : (head + 1) * size]) for head in range(self._count)]
        cuts: dict[str, Cut] = {}
        for name in sorted(self._tensors, key=self._is_filters, reverse=True):
            tensor = self._tensors[name]
            for along in range(tensor.ndim if name not in cuts else 0):
                heads = _of_heads(torch.stack([_slices(each[name], along, tensor) for each in touched]))
                if isinstance(heads, str) and self._is_filters(name) and not along:
                    return heads
                if isinstance(heads, tuple):
                    of_layer = name.rpartition(".")[0] if self._is_filters(name) else ""
                    cuts[name] = Cut(name, along, heads, of_layer)
                    cuts |= {each: Cut(each, 0, heads) for each in self._beside(name, len(heads)) if not along}
                    break
        if not any(self._is_filters(name) for name in cuts):
            return ()
        own = tuple(head for head in range(self._count) for _ in range(size))
        return (*cuts.values(), Cut(f"{projection}.weight", 1, own, projection))

    def _is_filters(self, name: str) -> bool:
        """Whether a tensor is the weight of a layer."""
        path, _, own = name.rpartition(".")
        return own == "weight" and isinstance(self._module.get_submodule(path), _LAYERS)

    def _beside(self, weight: str, rows: int) -> Iterator[str]:
        """Other tensors of a weight's module with an element for each of its rows: biases, statistics."""
        path, _, own = weight.rpartition(".")
        module = self._module.get_submodule(path)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if own == "weight" != name and tensor.ndim and len(tensor) == rows:
                yield f"{path}.{name}" if path else name

    def _read_by(self, projection: str) -> Tensor | None:
        """With its history."""
        caught: list[Tensor] = []

        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            caught.append(args[0])
            raise Reached

        handle = self._module.get_submodule(projection).register_forward_pre_hook(hook)
        try:
            with torch.enable_grad(), leaving_nothing(self._module):
                self._module(*self._args, **self._kwargs)
        except Reached:
            pass
        finally:
            handle.remove()
        return caught[0] if caught and caught[0].requires_grad else None

    def _attends(self, weighted: Tensor, size: int) -> bool:
        """Whether some rows are read by several inputs of one head: those of queries and keys."""
        first, last = (self._touched(weighted[..., index : index + 1]) for index in (0, size - 1))
        rows = {name: each for name, each in self._tensors.items() if self._is_filters(name)}
        both = (_slices(first[name], 0, each) & _slices(last[name], 0, each) for name, each in rows.items())
        return size > 1 and any(bool(each.any()) and not bool(each.all()) for each in both)

    def _touched(self, part: Tensor) -> dict[str, Tensor | None]:
        grads = torch.autograd.grad(part.sum(), list(self._tensors.values()), retain_graph=True, allow_unused=True)
        return dict(zip(self._tensors, grads, strict=True))

    def _tried(self, projection: str, cuts: tuple[Cut, ...]) -> Heads | str:
        """With the numbers that have to change; or why there are none."""
        named = [
            (path, name)
            for path, module in self._module.named_modules()
            for name in NUMBERS_OF_HEADS
            if not isinstance(module, _LAYERS) and vars(module).get(name) == self._count
        ]
        gone = range(0, self._count, 2)
        whole = Heads("", self._count, projection, cuts)
        silent = copied(self._module)
        silence_heads(silent, whole, gone)
        wanted, error = self._given_by(silent, projection), ""
        for more in _subsets(self._widths(cuts)):
            found = Heads("", self._count, projection, cuts, (*named, *more))
            own = copied(self._module)
            try:
                cut_heads(own, found, gone)
                given = self._given_by(own, projection)
            except Exception as raised:  # another's module may raise anything
                error = error or f" ({(str(raised).splitlines() or [''])[0][:120]})"
                continue
            if given.shape == wanted.shape and bool((given - wanted).abs().max() <= _TOLERANCE * wanted.abs().max()):
                return found
        return (
            "its forward pass takes the width of its heads from what it reads, or uses them in a way that cannot be "
            f"followed{error}; it should use attributes (num_heads, head_dim) and join heads with a reshape to -1"
        )

    def _widths(self, cuts: Sequence[Cut]) -> list[tuple[str, str]]:
        """Numbers that may be widths of all heads together."""
        rows = {sum(head >= 0 for head in cut.heads) for cut in cuts}
        joined = sum(head >= 0 for head in cuts[-1].heads)
        # Of values, of what lies beside them in a layer, and of queries or keys alone.
        sizes = rows | {each - joined for each in rows} | {(each - joined) // 2 for each in rows}
        return [
            (path, name)
            for path, module in self._module.named_modules()
            for name, value in vars(module).items()
            if not isinstance(module, (*_LAYERS, _BatchNorm))
            and isinstance(value, int)
            and not isinstance(value, bool)
            and name not in NUMBERS_OF_HEADS
            and value in sizes
            and value > self._count
            and not value % self._count
        ]

    def _given_by(self, module: nn.Module, projection: str) -> Tensor:
        caught: list[Tensor] = []
        layer = module.get_submodule(projection)
        handle = layer.register_forward_hook(lambda _, __, output: caught.append(output))
        try:
            with torch.no_grad(), leaving_nothing(module):
                module(*self._args, **self._kwargs)
        finally:
            handle.remove()
        return caught[0]


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    """Random parameters, for trained ones may saturate: what belongs to which head does not depend on them."""
    drawn = generator("attention")
    for name, parameter in module.named_parameters():
        if isinstance(module.get_submodule(name.rpartition(".")[0]), _LAYERS) and parameter.ndim > 1:
            values = torch.randn(parameter.shape, generator=drawn) / parameter[0].numel() ** 0.5
        else:
            values = torch.rand(parameter.shape, generator=drawn) + (-0.5 if name.endswith("bias") else 0.5)
        parameter.copy_(values)


def _width(weight: Tensor) -> int:
    """Inputs of a layer; 0 of a convolution that looks beyond a pixel."""
    return weight.shape[1] if weight[0, 0].numel() == 1 else 0


def _slices(gradient: Tensor | None, dim: int, tensor: Tensor) -> Tensor:
    """(slices along it,) bool, whether any element of each has a gradient."""
    if gradient is None:
        return torch.zeros(tensor.shape[dim], dtype=torch.bool)
    return gradient.movedim(dim, 0).reshape(tensor.shape[dim], -1).ne(0).any(dim=1)


def _of_heads(touched: Tensor) -> tuple[int, ...] | str | None:
    """From (heads, slices), which head reads which slice: the head of each slice, -1 where it is all heads'; None where
    no slice is a single head's.
    """
    count, slices = touched.shape
    readers = touched.sum(dim=0)
    own = readers == 1
    shares = torch.bincount(touched[:, own].int().argmax(dim=0), minlength=count) if own.any() else None
    if shares is None or not bool((shares > 0).all()):
        return None
    if bool(((readers > 1) & (readers < count)).any()):
        return "some of its heads share keys or values with others"
    # The softmax takes no notice of a bias of the keys: rounding alone may give it a gradient here, and none there.
    head, each = touched.int().argmax(dim=0), slices // count
    in_a_row = torch.arange(slices) // max(each, 1)
    if slices == each * count and bool((head == in_a_row)[own].all()) and not bool((readers > 1).any()):
        return tuple(in_a_row.tolist())
    if not bool((shares == shares[0]).all()):
        return "its heads are of several widths"
    return tuple(torch.where(own, head, -1).tolist())


def _subsets(widths: Sequence[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Those first that leave out what may be the width of the input; of these, the largest."""
    others = [each for each in widths if each[1] not in _OF_INPUT]
    first = [own for size in range(len(others), -1, -1) for own in itertools.combinations(others, size)]
    rest = (own for size in range(len(widths), -1, -1) for own in itertools.combinations(widths, size))
    yield from first
    yield from (own for own in rest if own not in first)


def _resize(module: nn.Module) -> None:
    """What a layer or norm says of its sizes follows its tensors."""
    sizes: Mapping[str, int] = {}
    if isinstance(module, nn.Linear):
        sizes = {"in_features": module.weight.shape[1], "out_features": len(module.weight)}
    elif isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels > 1
        groups = len(module.weight) * module.groups // module.out_channels if depthwise else module.groups
        sizes = {"out_channels": len(module.weight), "in_channels": module.weight.shape[1] * groups, "groups": groups}
    elif isinstance(module, _BatchNorm):
        sizes = {"num_features": len(next(each for each in (*module.parameters(), *module.buffers()) if each.ndim))}
    for name, size in sizes.items():
        setattr(module, name, size)


def _forget(module: nn.Module) -> None:
    """What a module has derived from its weights when it last ran, or when it last changed its mode."""
    own = (module._parameters, module._buffers)
    for value in vars(module).values():
        holds_tensors = isinstance(value, dict) and all(isinstance(each, Tensor) for each in value.values())
        if holds_tensors and not any(value is each for each in own):
            value.clear()
