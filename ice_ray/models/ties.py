"""Tensors that a model holds under several names: tied weights, a weight that is a buffer elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ice_ray.errors import UserError

Tie = tuple[str, ...]
"""Names of one tensor, a parameter's first where there is one."""


def ties_of(model: nn.Module) -> list[Tie]:
    """The tensors that several modules hold, or one holds twice. A module that has several names is no tie: it is the
    same module everywhere.
    """
    named: dict[object, list[str]] = {}
    for name, tensor in sorted(_held(model), key=lambda held: not isinstance(held[1], nn.Parameter)):
        named.setdefault(_identity(tensor), []).append(name)
    return [tuple(names) for names in named.values() if len(names) > 1]


def join(model: nn.Module, ties: Sequence[Tie]) -> None:
    """Make all names of each tie name the first one's tensor, in place."""
    for first, *others in ties:
        tensor = _get(model, first)
        for name in others:
            path, _, own = name.rpartition(".")
            module = model.get_submodule(path)
            if own in module._parameters:
                module._parameters[own] = tensor  # type: ignore[assignment] # a parameter comes first
            else:
                module._buffers[own] = tensor.detach()


@contextmanager
def kept_ties(model: nn.Module) -> Iterator[None]:
    """Tensors that are shared before the block are shared after it, whatever it does to them."""
    ties = ties_of(model)
    yield
    join(model, ties)


def check_overlaps(model: nn.Module) -> None:
    """Raises UserError: a parameter shares memory with another tensor of the model without being the same."""
    spans: dict[int, list[tuple[int, int, str, Tensor]]] = {}
    for name, tensor in _held(model):
        extent = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        start = tensor.data_ptr()
        span = start, start + extent * tensor.element_size(), name, tensor
        for begin, end, other, held in spans.get(tensor.untyped_storage().data_ptr(), ()):
            trains = isinstance(tensor, nn.Parameter) or isinstance(held, nn.Parameter)
            if trains and begin < span[1] and span[0] < end and _identity(tensor) != _identity(held):
                raise UserError(
                    f"{other} and {name} of the model share memory without being one tensor: give one of them a copy "
                    "(.clone()), or use one of them in both places"
                )
        spans.setdefault(tensor.untyped_storage().data_ptr(), []).append(span)


def completed(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Weights of a model with those of the names left out that another name of the same tensor gives.

    Raises:
        UserError: they hold different values for the names of one tensor.
    """
    found: dict[str, Tensor] = dict(weights)
    named: dict[object, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta":
            named.setdefault(_identity(tensor), []).append(name)
    for names in named.values():
        given = [name for name in names if name in weights]
        for name in names if given else ():
            if name not in weights:
                found[name] = weights[given[0]]
            elif name != given[0] and not _agree(weights[name], weights[given[0]]):
                raise UserError(
                    f"weights '{origin}' hold different values for {given[0]} and {name}, which are one tensor in the "
                    "model; is it the right model?"
                )
    return found


def copies_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU; tensors that were shared stay shared."""
    made: dict[object, Tensor] = {}
    for tensor in tensors.values():
        if (place := _identity(tensor)) not in made:
            made[place] = tensor.detach().to("cpu", copy=True).contiguous()
    return {name: made[_identity(tensor)] for name, tensor in tensors.items()}


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return True  # one of them does not fit, and that is said elsewhere
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _held(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors that are in memory, by name."""
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            plain = tensor is not None and not is_lazy(tensor) and tensor.layout is torch.strided
            if tensor is not None and plain and tensor.numel() and tensor.device.type != "meta":
                yield prefix + name, tensor


def _identity(tensor: Tensor) -> object:
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _get(model: nn.Module, name: str) -> Tensor:
    path, _, own = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), own)
    return tensor
