"""Parts of a forward pass: those that end at a layer, and those that begin where an earlier one had come to.

A network that is pruned from front to back is looked at again after every step. What lies before the step is as it
was, so the passes begin behind it: those that end at the step take time in proportion to the depth of a step, not of
all that lies before.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_NEAREST = 4
"""Modules before a layer that are looked at: inside a block it is often none of them."""


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


def _run_to(model: nn.Module, module: str, images: Tensor, hook: Callable[..., None]) -> None:
    """A forward pass in full precision; the hook, at the module's first use, ends it."""
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
class Entrance:
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

    def follows(self, other: Entrance) -> bool:
        """Whether all that has run by the other has run by this one."""
        return all(self.is_behind(name) for name in other.done)


@dataclass(frozen=True)
class Standing:
    """A forward pass that has come to an entrance.

    Attributes:
        output: of the entrance's module.
        shapes: of the outputs of the other modules that have run.
    """

    entrance: Entrance
    output: Tensor
    shapes: Mapping[str, torch.Size]


def reach(model: nn.Module, entrance: Entrance, images: Tensor, before: Standing | None = None) -> Standing:
    """Run as far as an entrance, in full precision.

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
            stack.enter_context(going_on(model, before))
        for name in entrance.done:
            if name != entrance.module:
                handle = model.get_submodule(name).register_forward_hook(note(name))
                stack.callback(handle.remove)
        _run_to(model, entrance.module, images, stop)
    return Standing(entrance, caught[0], {name: shapes[name] for name in entrance.done if name != entrance.module})


@contextmanager
def going_on(model: nn.Module, standing: Standing) -> Iterator[None]:
    """While the block runs, forward passes of the same images begin where an earlier one stands: the module of the
    entrance answers what it has answered, and of those before it only the shapes are right.
    """
    with ExitStack() as stack:
        for name in standing.entrance.done:
            own = model.get_submodule(name)
            stack.enter_context(_answering(own, _answer(standing, name)))
        yield


def _answer(standing: Standing, name: str) -> Callable[..., Tensor]:
    if name == standing.entrance.module:
        return lambda *_, **__: standing.output.clone()  # it may be changed in place by what reads it
    return lambda *_, **__: standing.output.new_zeros(standing.shapes[name])


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


def find_entrances(model: nn.Module, image_shape: tuple[int, int, int], layers: Sequence[str]) -> dict[str, Entrance]:
    """The last entrance before each layer, where there is one: found by trying.

    What has run shortly before a layer is one, if a pass that begins there comes to the next one as a whole pass does:
    tried from the last to the first, all of them take about the time of a pass.

    Args:
        layers: module paths, in the order in which they run.
    """
    drawn = torch.Generator().manual_seed(0)
    probe = copy.deepcopy(model).eval()
    for module in probe.modules():  # fresh norms do next to nothing, and what does nothing seems not to be needed
        if isinstance(module, _BatchNorm):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=drawn))
    parameter = next(probe.parameters())
    images = torch.rand(2, *image_shape, generator=drawn).to(parameter)
    events = _events(probe, images)
    norms = {name for name, module in probe.named_modules() if isinstance(module, _BatchNorm)}
    candidates = {layer: _before(events, layer, norms) for layer in layers}
    standings, expected = _whole_pass(probe, images, [each for own in candidates.values() for each in own])
    with torch.inference_mode():
        probe(1 - images)  # so that what a module keeps beside its output is not that of these images by chance
    behind: Standing | None = None
    valid: set[Entrance] = set()
    for standing in reversed(standings):
        if _leads_to(probe, images, standing, behind, expected):
            behind = standing
            valid.add(standing.entrance)
    found: dict[str, Entrance] = {}
    last: Entrance | None = None
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


def _before(events: _Events, layer: str, norms: Container[str]) -> list[Entrance]:
    """What has run last before a layer, in that order. Modules that run more than once, or give no tensor, do not count
    and run all the same; behind a norm that runs more than once nothing counts: what it does before an entrance changes
    with what it reads behind.
    """
    runs = Counter(name for kind, name, _ in events if kind == "in")
    done: list[str] = []
    last: deque[Entrance] = deque(maxlen=_NEAREST)
    for kind, name, size in events:
        if (kind == "in" and name == layer) or (name in norms and runs[name] > 1):
            break
        if kind == "out" and size and runs[name] == 1:
            done = [*(each for each in done if not each.startswith(f"{name}.")), name]
            last.append(Entrance(name, tuple(done), size))
    return list(last)


def _whole_pass(model: nn.Module, images: Tensor, entrances: Sequence[Entrance]) -> tuple[list[Standing], Tensor]:
    """Where a pass stands at each entrance, in the order in which it comes to them, and how it ends."""
    outputs: dict[str, Tensor] = {}
    shapes: dict[str, torch.Size] = {}
    wanted = {entrance.module: entrance for entrance in entrances}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            shapes[name] = output.shape
            if name in wanted:
                outputs[name] = output.clone()  # what comes behind may change it in place

        return hook

    with ExitStack() as stack:
        for name in dict.fromkeys(name for entrance in entrances for name in entrance.done):
            stack.callback(model.get_submodule(name).register_forward_hook(note(name)).remove)
        with torch.inference_mode():
            expected = model(images)
    return [Standing(wanted[name], output, shapes) for name, output in outputs.items()], expected


def _leads_to(model: nn.Module, images: Tensor, standing: Standing, behind: Standing | None, expected: Tensor) -> bool:
    """Whether a pass that begins at an entrance comes, as a whole one does, to the entrance behind it or to the end."""
    try:
        if behind is not None:
            return bool(torch.equal(reach(model, behind.entrance, images, standing).output, behind.output))
        with going_on(model, standing), torch.inference_mode():
            return bool(torch.equal(model(images), expected))
    except Exception:  # the network is anybody's, and need not bear what is tried with it
        return False
