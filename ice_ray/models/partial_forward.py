"""Parts of a forward pass: those that end at a layer, and those that begin where an earlier one had come to.

A network that is pruned from front to back is looked at again after every step. What lies before the step is as it
was, so the passes begin behind it: those that end at the step take time in proportion to the depth of a step, not of
all that lies before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ice_ray.models.residual_branches import shortcut


class _Reached(Exception):
    """The module has been reached: nothing behind it is wanted."""


def reads_and_gives(model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output of a layer at its first use in a forward pass, which ends there; in full precision, whoever
    asks: what a criterion has worked out serves the repair, bit for bit.
    """
    caught: list[tuple[Tensor, Tensor]] = []

    def hook(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        caught.append((given[0].detach(), output.detach()))
        raise _Reached

    _run_to(model, layer, images, hook)
    return caught[0]


@dataclass(frozen=True)
class Passage:
    """What a layer reads and gives in a forward pass, and what its output (that of its norm, where one is behind) is
    added to, where that was asked for.
    """

    given: Tensor
    output: Tensor
    shortcut: Tensor | None = None


def passage(model: nn.Module, layer: str, images: Tensor, end: str | None = None) -> Passage:
    """A layer's first use in a forward pass, which ends there, or, where that is asked for, at the sum behind it; in
    full precision, whoever asks.

    Args:
        end: the module, the layer or its norm, whose output is added to something (`find_residual_branches`).
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
            _run_to(model, end, images, watch)
    finally:
        handle.remove()
    assert sums.other is not None
    return Passage(*caught[0], sums.other.detach())


@dataclass(frozen=True)
class End:
    """A point of a forward pass: a module's output, or the sum that it is a term of (`find_residual_branches`)."""

    module: str
    is_term: bool = False


def outputs_at(model: nn.Module, ends: Sequence[End], images: Tensor) -> list[Tensor]:
    """What a forward pass gives at each of some places, at the module's first use; it ends when all are known. In full
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
        except _Reached as reached:
            clear_frames(reached.__traceback__)
    return [sums.found[end] for end in ends]


class _UntilAdditions(TorchFunctionMode):
    """Ends a pass where the last of some places is reached."""

    def __init__(self, ends: Sequence[End]) -> None:
        super().__init__()
        self.found: dict[End, Tensor] = {}
        self._count, self._terms = len(ends), dict[End, Tensor]()

    def watching(self, end: End) -> Callable[..., None]:
        """A forward hook for the module of that place."""

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
            raise _Reached


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
                raise _Reached
        return func(*args, **(kwargs or {}))


def _run_to(model: nn.Module, module: str, images: Tensor, hook: Callable[..., None]) -> None:
    """A forward pass in full precision; the hook, at the module's first use, ends it, or what it sets going does."""
    full = torch.autocast(images.device.type, enabled=False)
    handle = model.get_submodule(module).register_forward_hook(hook)
    try:
        with torch.inference_mode(), full:
            model(images)
    except _Reached as reached:
        clear_frames(reached.__traceback__)  # they hold activations, in cycles that only the collector would end
        return
    finally:
        handle.remove()
    raise ValueError(f"layer '{module}' was not reached")


@dataclass(frozen=True)
class ResumePoint:
    """A place in the forward pass behind which everything depends on one module's output alone.

    Attributes:
        module: its path.
        done: the outermost modules that have run by then, this one among them.
        size: values of its output for one image.
    """

    module: str
    done: tuple[str, ...]
    size: int

    def is_behind(self, layer: str) -> bool:
        """Whether a layer has run by then."""
        return any(layer == name or layer.startswith(f"{name}.") for name in self.done)

    def follows(self, other: ResumePoint) -> bool:
        """Whether all that has run by the other has run by this one."""
        return all(self.is_behind(name) for name in other.done)


@dataclass(frozen=True)
class Activations:
    """A forward pass that has come to a resume point.

    Attributes:
        output: of the resume_point's module.
        shapes: of the outputs of the other modules that have run.
    """

    resume_point: ResumePoint
    output: Tensor
    shapes: Mapping[str, torch.Size]


def reach(
    model: nn.Module, resume_point: ResumePoint, images: Tensor, before: Activations | None = None
) -> Activations:
    """Run as far as a resume point, in full precision.

    Args:
        before: where an earlier pass of the same images had come to, with nothing changed that it had run through.
    """
    shapes: dict[str, torch.Size] = dict(before.shapes) if before is not None else {}
    caught: list[Tensor] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            shapes[name] = output.shape

        return hook

    def stop(_: nn.Module, __: object, output: Tensor) -> None:
        caught.append(output.detach())
        raise _Reached

    with ExitStack() as stack:
        if before is not None:
            stack.enter_context(resume_from(model, before))
        for name in resume_point.done:
            if name != resume_point.module:
                handle = model.get_submodule(name).register_forward_hook(note(name))
                stack.callback(handle.remove)
        _run_to(model, resume_point.module, images, stop)
    return Activations(
        resume_point, caught[0], {name: shapes[name] for name in resume_point.done if name != resume_point.module}
    )


@contextmanager
def resume_from(model: nn.Module, activations: Activations) -> Iterator[None]:
    """While the block runs, forward passes of the same images begin where an earlier one stands: the module of the
    resume point answers what it has answered, and of those before it only the shapes are right.
    """
    with ExitStack() as stack:
        for name in activations.resume_point.done:
            own = model.get_submodule(name)
            stack.enter_context(_answering(own, _answer(activations, name)))
        yield


def chosen(all_activations: Sequence[Activations], sizes: Sequence[int], rows: Tensor) -> Activations | None:
    """Of passes of several batches that have come to the same resume point, that of some of their images together; None
    where what stands there has not a row for each image.

    Args:
        sizes: images of each batch.
        rows: int64, ascending, on the CPU: of all images in the order of the batches.
    """
    resume_point, shapes = all_activations[0].resume_point, all_activations[0].shapes
    parts, start = [], 0
    for activations, count in zip(all_activations, sizes, strict=True):
        if any(shape[:1] != (count,) for shape in (activations.output.shape, *activations.shapes.values())):
            return None
        inside = rows[(rows >= start) & (rows < start + count)] - start
        parts.append(activations.output[inside.to(activations.output.device)])
        start += count
    one = {name: torch.Size((len(rows), *shape[1:])) for name, shape in shapes.items()}
    return Activations(resume_point, torch.cat(parts), one)


def _answer(activations: Activations, name: str) -> Callable[..., Tensor]:
    if name == activations.resume_point.module:
        return lambda *_, **__: activations.output.clone()  # it may be changed in place by what reads it
    return lambda *_, **__: activations.output.new_zeros(activations.shapes[name])


@contextmanager
def _answering(module: nn.Module, answer: Callable[..., Tensor]) -> Iterator[None]:
    own = module.__dict__
    had: dict[str, Any] = {"forward": own["forward"]} if "forward" in own else {}
    own["forward"] = answer
    try:
        yield
    finally:
        del own["forward"]
        own.update(had)
