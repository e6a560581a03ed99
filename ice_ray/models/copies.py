"""Copying networks, filling them with weights, drawing weights anew, and copies to try things on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ice_ray.errors import UserError
from ice_ray.randomness import seed_of

_OF_TORCH = frozenset(nn.Module().__dict__)
"""What every module has: weights, buffers, parts, hooks."""


def copied(model: nn.Module) -> nn.Module:
    """A deep copy. Of tensors that passes have kept in the network it has the values without their history."""
    with _WithoutHistory():
        return copy.deepcopy(model)


class _WithoutHistory(TorchFunctionMode):
    """Deep copies of non-leaf tensors are copies of their values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def fill(model: nn.Module, weights: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load weights, in place. What the network derived from its former weights when it entered its mode (such as a
    table of biases) is derived anew.
    """
    model.load_state_dict(weights, strict=strict)
    mode = model.training
    model.train(not mode)
    model.train(mode)


@contextmanager
def leaving_nothing(model: nn.Module) -> Iterator[None]:
    """Undo what passes within the block keep in a network beside weights and buffers: such a cache would outlive the
    weights that it was computed from.
    """
    kept = [(module.__dict__, _own(module), _contents(module)) for module in model.modules()]
    try:
        yield
    finally:
        for now, before, contents in kept:
            for name in [each for each in now if each not in before and each not in _OF_TORCH]:
                del now[name]
            now.update(before)
            for held, content in contents:
                held.clear()
                held.update(content) if isinstance(held, (dict, set)) else held.extend(content)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in module.__dict__.items() if name not in _OF_TORCH}


def _contents(module: nn.Module) -> list[tuple[Any, Any]]:
    """The containers among a module's attributes, and what is in them now."""
    return [(value, copy.copy(value)) for value in _own(module).values() if type(value) in (dict, list, set)]


def reinitialise(model: nn.Module, key: tuple[int | str, ...]) -> None:
    """Draw every weight that trains anew, in place, as its module's own `reset_parameters` does.

    The draws are made on the CPU, so that they are the same for every device.

    Args:
        key: names the random choices.

    Raises:
        UserError: a module with parameters of its own that cannot be drawn anew.
    """
    device = next(model.parameters()).device
    fixed = [(each, each.detach().clone()) for each in model.parameters() if not each.requires_grad]
    model.cpu()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(each.requires_grad for each in module.parameters(recurse=False)):
                raise UserError(f"{name or 'the model'} ({type(module).__name__}) cannot be initialised anew")
    with torch.no_grad():
        for parameter, value in fixed:
            parameter.copy_(value)
    model.to(device)


def probe_of(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[nn.Module, Tensor]:
    """A copy in eval mode whose batch norms are drawn at random (fresh ones change nearly nothing), and two random
    images (2, C, H, W).
    """
    drawn = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    images = torch.rand(2, *image_shape, generator=drawn).to(parameter)
    probe = copied(model).eval()
    for module in probe.modules():
        if isinstance(module, _BatchNorm):
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=drawn))
    return probe, images


@torch.no_grad()
def unsettled(model: nn.Module) -> nn.Module:
    """A copy in eval mode in which no channel is zero and no two are alike: per-channel factors, shifts and statistics
    are drawn at random, and so are weights that are all equal, as where training begins from zeros.
    """
    drawn = torch.Generator().manual_seed(0)
    probe = copied(model).eval()
    for module in probe.modules():
        tensors: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
        if hasattr(module, "running_mean"):
            tensors |= dict(module.named_buffers(recurse=False))
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            if tensor.numel() == max(tensor.shape, default=1):
                least = -0.5 if name.endswith(("bias", "mean")) else 0.5
                tensor.copy_(least + torch.rand(tensor.shape, generator=drawn))
            elif bool((tensor == tensor.flatten()[0]).all()):
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=drawn) / fan_in**0.5)
    return probe
