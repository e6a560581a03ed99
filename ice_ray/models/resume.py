"""Forward passes that resume where an earlier one stopped.

Pruning runs from front to back. Layers before the present step have not changed, so passes resume behind them: passes
that end at the step take time in proportion to the depth of a step, not to that of the network before it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ice_ray.models.answers import logits_of
from ice_ray.models.copies import probe_of
from ice_ray.models.partial_forward import Reached, run_to

_NEAREST = 4
"""Modules before a layer that are looked at: inside a block it is often none of them."""


@dataclass(frozen=True)
class ResumePoint:
    """A point of the forward pass behind which everything depends on the output of one module only.

    Attributes:
        module: its path.
        done: the outermost modules that have run by then, this one among them.
        size: values of its output for one image.
    """

    module: str
    done: tuple[str, ...]
    size: int

    def is_behind(self, layer: str) -> bool:
        """Whether a layer runs before the point."""
        return any(layer == name or layer.startswith(f"{name}.") for name in self.done)

    def follows(self, other: ResumePoint) -> bool:
        """Whether all that runs before the other point runs before this one."""
        return all(self.is_behind(name) for name in other.done)


@dataclass(frozen=True)
class Activations:
    """The activations of a batch at a resume point.

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
    """Run up to a resume point, in full precision.

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
        raise Reached

    with ExitStack() as stack:
        if before is not None:
            stack.enter_context(resume_from(model, before))
        for name in resume_point.done:
            if name != resume_point.module:
                handle = model.get_submodule(name).register_forward_hook(note(name))
                stack.callback(handle.remove)
        run_to(model, resume_point.module, images, stop)
    return Activations(
        resume_point, caught[0], {name: shapes[name] for name in resume_point.done if name != resume_point.module}
    )


@contextmanager
def resume_from(model: nn.Module, activations: Activations) -> Iterator[None]:
    """While the block runs, forward passes of the same images resume at the activations: the module of the resume point
    returns its former output, and the modules before it zeros of the right shapes.
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
    for activations, count in zip(all_activations, sizes, strict=False):
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


def find_resume_points(
    model: nn.Module, image_shape: tuple[int, int, int], layers: Sequence[str]
) -> dict[str, ResumePoint]:
    """The last resume point before each layer, where there is one: found by trying.

    What has run shortly before a layer is one, if a pass that begins there comes to the next one as a whole pass does:
    tried from the last to the first, all of them take about the time of a pass.

    Args:
        layers: module paths, in the order in which they run.
    """
    probe, images = probe_of(model, image_shape)
    events = _events(probe, images)
    norms = {name for name, module in probe.named_modules() if isinstance(module, _BatchNorm)}
    candidates = {layer: _before(events, layer, norms) for layer in layers}
    all_activations, expected = _whole_pass(probe, images, [each for own in candidates.values() for each in own])
    with torch.inference_mode():
        probe(1 - images)  # so that what a module keeps beside its output is not that of these images by chance
    behind: Activations | None = None
    valid: set[ResumePoint] = set()
    for activations in reversed(all_activations):
        if _leads_to(probe, images, activations, behind, expected):
            behind = activations
            valid.add(activations.resume_point)
    found: dict[str, ResumePoint] = {}
    last: ResumePoint | None = None
    for layer in layers:
        last = next((each for each in reversed(candidates[layer]) if each in valid), last)
        if last is not None:
            found[layer] = last
    return found


_Events = list[tuple[str, str, int]]
"""What happens in a forward pass: ("in" or "out", module path, values of the tensor that it gave for an image)."""


def _events(model: nn.Module, images: Tensor) -> _Events:
    events: _Events = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: events.append(("in", name, 0))

    def leave(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            events.append(("out", name, output.numel() // len(images) if isinstance(output, Tensor) else 0))

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(enter(name)).remove)
                stack.callback(module.register_forward_hook(leave(name)).remove)
        with torch.inference_mode():
            model(images)
    return events


def _before(events: _Events, layer: str, norms: Container[str]) -> list[ResumePoint]:
    """What has run last before a layer, in that order. Modules that run more than once, or give no tensor, do not count
    and run all the same; behind a norm that runs more than once nothing counts: what it does before a resume point
    changes with what it reads behind.
    """
    runs = Counter(name for kind, name, _ in events if kind == "in")
    done: list[str] = []
    last: deque[ResumePoint] = deque(maxlen=_NEAREST)
    for kind, name, size in events:
        if (kind == "in" and name == layer) or (name in norms and runs[name] > 1):
            break
        if kind == "out" and size and runs[name] == 1:
            done = [*(each for each in done if not each.startswith(f"{name}.")), name]
            last.append(ResumePoint(name, tuple(done), size))
    return list(last)


def _whole_pass(
    model: nn.Module, images: Tensor, resume_points: Sequence[ResumePoint]
) -> tuple[list[Activations], Tensor]:
    """The activations of a whole pass at each resume point, in order of execution, and its logits."""
    outputs: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    wanted = {resume_point.module: resume_point for resume_point in resume_points}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            shapes[name] = output.shape
            if name in wanted:
                outputs[name] = output.clone()  # what comes behind may change it in place

        return hook

    with ExitStack() as stack:
        for name in dict.fromkeys(name for resume_point in resume_points for name in resume_point.done):
            stack.callback(model.get_submodule(name).register_forward_hook(note(name)).remove)
        with torch.inference_mode():
            expected = logits_of(model(images))
    return [Activations(wanted[name], output, shapes) for name, output in outputs.items()], expected


def _leads_to(
    model: nn.Module, images: Tensor, activations: Activations, behind: Activations | None, expected: Tensor
) -> bool:
    """Whether a pass resumed here reaches the same values as a whole pass: at the point behind, or at the logits."""
    try:
        if behind is not None:
            return bool(torch.equal(reach(model, behind.resume_point, images, activations).output, behind.output))
        with resume_from(model, activations), torch.inference_mode():
            return bool(torch.equal(logits_of(model(images)), expected))
    except Exception:  # the network is anybody's, and need not bear what is tried with it
        return False
