"""Forward passes that end at a layer, or at the sum behind a residual branch; and what becomes of layers' outputs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ice_ray.models.copies import probe_of


class Reached(Exception):
    """Ends a forward pass at the module that was asked for."""


def reads_and_gives(model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a layer at its first call in a forward pass, which ends there. In full precision whatever the
    caller's, so that criteria and repairs see the same bits.
    """
    caught: list[tuple[Tensor, Tensor]] = []

    def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        caught.append((given[0].detach(), output.detach()))
        raise Reached

    run_to(model, layer, images, hook)
    return caught[0]


@dataclass(frozen=True)
class Passage:
    """A layer's input and output in a forward pass, and the shortcut: what its output (its norm's, if it has one) is
    added to.
    """

    given: Tensor
    output: Tensor
    shortcut: Tensor | None = None


def passage(model: nn.Module, layer: str, images: Tensor, end: str | None = None) -> Passage:
    """A layer's first call in a forward pass, which ends there, or at the sum behind `end`. In full precision.

    Args:
        end: the layer or its norm, whose output is added to a shortcut (`follow`).
    """
    if end is None:
        return Passage(*reads_and_gives(model, layer, images))
    caught: list[tuple[Tensor, Tensor]] = []
    sums = _UntilAddition()

    def note(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not caught:
            caught.append((given[0].detach().clone(), output.detach().clone()))  # the pass goes on, perhaps in place

    def watch(_: nn.Module, __: object, output: Tensor) -> None:
        sums.term = output

    handle = model.get_submodule(layer).register_forward_hook(note)
    try:
        with sums:
            run_to(model, end, images, watch)
    finally:
        handle.remove()
    assert sums.other is not None
    return Passage(*caught[0], sums.other.detach())


@dataclass(frozen=True)
class End:
    """A point of a forward pass: a module's output, or the sum that it is a term of (`follow`)."""

    module: str
    is_term: bool = False


def outputs_at(model: nn.Module, ends: Sequence[End], images: Tensor) -> list[Tensor]:
    """What a forward pass gives at some points, at each module's first call; it ends when all are known. In full
    precision, and with gradients where they are enabled.
    """
    sums = _UntilAdditions(ends)
    with ExitStack() as stack:
        for end in ends:
            stack.callback(model.get_submodule(end.module).register_forward_hook(sums.watching(end)).remove)
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        stack.enter_context(sums)
        try:
            model(images)
        except Reached as reached:
            clear_frames(reached.__traceback__)
    return [sums.found[end] for end in ends]


class _UntilAdditions(TorchFunctionMode):
    """Ends a pass when all of some points have been reached."""

    def __init__(self, ends: Sequence[End]) -> None:
        super().__init__()
        self.found: dict[End, Tensor] = {}
        self._count, self._terms = len(ends), dict[End, Tensor]()

    def watching(self, end: End) -> Callable[..., None]:
        """A forward hook for the module of that point."""

        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            if end.is_term:
                self._terms.setdefault(end, output)
            elif end not in self.found:
                self._reach(end, output.clone())  # the pass goes on, perhaps in place

        return hook

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        for end, term in self._terms.items():
            other = None if end in self.found else shortcut(func, args, kwargs or {}, term)
            if other is not None:
                self._reach(end, term + other)
        return func(*args, **(kwargs or {}))

    def _reach(self, end: End, value: Tensor) -> None:
        self.found[end] = value
        if len(self.found) == self._count:
            raise Reached


class _UntilAddition(TorchFunctionMode):
    """Ends a pass where something is added to `term`."""

    def __init__(self) -> None:
        super().__init__()
        self.term: Tensor | None = None
        self.other: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if self.term is not None:
            self.other = shortcut(func, args, kwargs or {}, self.term)
            if self.other is not None:
                raise Reached
        return func(*args, **(kwargs or {}))


def run_to(model: nn.Module, module: str, images: Tensor, hook: Callable[..., None]) -> None:
    """A forward pass in full precision, which `hook` ends at the first call of the module."""
    full = torch.autocast(images.device.type, enabled=False)
    handle = model.get_submodule(module).register_forward_hook(hook)
    try:
        with torch.inference_mode(), full:
            model(images)
    except Reached as reached:
        clear_frames(reached.__traceback__)  # they hold activations, in cycles that only the collector would end
        return
    finally:
        handle.remove()
    raise ValueError(f"layer '{module}' was not reached")


_ADDITIONS = frozenset({"add", "add_"})


def shortcut(function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any], term: Tensor) -> Any:
    """What a call of a torch function adds to a tensor: another tensor of its shape; None if it does not add."""
    if getattr(function, "__name__", "") not in _ADDITIONS or keywords or len(arguments) != 2:
        return None
    others = [each for each in arguments if each is not term]
    is_sum = len(others) == 1 and isinstance(others[0], Tensor) and others[0].shape == term.shape
    return others[0] if is_sum else None


@dataclass(frozen=True)
class Followed:
    """What becomes of a module's output.

    Attributes:
        is_term: whether it is added to a tensor of its shape and used nowhere else: it ends a residual branch.
        activation: the function that alone reads it, or that sum: a key of `ACTIVATIONS`; None where there is none.
    """

    is_term: bool
    activation: str | None


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
}
"""By name, as torch has it."""


class _Uses(TorchFunctionMode):
    """Counts, by module, the additions that use its output, and all uses; notes what reads the output, or the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, Tensor] = {}  # kept, so that no other tensor takes the place of one
        self.sums: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()
        self.readers: defaultdict[str, list[str]] = defaultdict(list)
        self._added: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if _has_tensor(result):  # shapes and the like are no use of it
            read, name = [*_flat([*args, *given.values()])], getattr(func, "__name__", "").rstrip("_")
            for layer, added in list(self._added.items()):
                if any(each is added for each in read):
                    self.readers[layer].append(name)
                    if result is added:
                        self._added[layer] = added.clone()  # changed in place: what reads it now reads what came of it
            for layer, output in list(self.outputs.items()):
                if any(each is output for each in read):
                    self.uses[layer] += 1
                    if shortcut(func, args, given, output) is not None:
                        self.sums[layer] += 1
                        self._added[layer] = result
                    else:
                        self.readers[layer].append(name)
                    if result is output:
                        self.outputs[layer] = output.clone()
        return result


def follow(model: nn.Module, image_shape: tuple[int, int, int], ends: Mapping[str, str]) -> dict[str, Followed]:
    """What becomes of layers' outputs, found in a pass of a copy.

    Args:
        ends: by layer, the module whose output is meant: the layer itself, or its batch norm.
    """
    probe, images = probe_of(model, image_shape)
    watch = _Uses()
    runs: Counter[str] = Counter()

    def note(layer: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            runs[layer] += 1
            if isinstance(output, Tensor):
                watch.outputs[layer] = output

        return hook

    with ExitStack() as stack:
        for layer, end in ends.items():
            stack.callback(probe.get_submodule(end).register_forward_hook(note(layer)).remove)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(watch)
        probe(images)
    found = {}
    for layer in ends:
        is_term = runs[layer] == watch.uses[layer] == watch.sums[layer] == 1
        read = watch.readers[layer]
        is_activated = runs[layer] == len(read) == 1 and (is_term or not watch.sums[layer]) and read[0] in ACTIVATIONS
        found[layer] = Followed(is_term, read[0] if is_activated else None)
    return found


def _flat(values: Sequence[Any]) -> list[Any]:
    """With the elements of lists and tuples (a concatenation's)."""
    return [part for each in values for part in (each if isinstance(each, (list, tuple)) else [each])]


def _has_tensor(value: Any) -> bool:
    return any(isinstance(each, Tensor) for each in _flat([value]))
