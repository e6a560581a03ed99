"""A traced forward pass: for every convolution and linear layer its order, its output positions and its batch norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ice_ray.models.answers import logits_of
from ice_ray.models.copies import copied, leaving_nothing


@dataclass(frozen=True)
class LayerTrace:
    """A convolution or linear layer as the forward pass meets it.

    Attributes:
        name: its module path.
        positions: output positions per image (height x width; 1 for a linear layer on vectors).
        norm: module path of the batch norm that takes its output directly, if any.
        lanes: where some of its positions are filters of other layers: (such a layer, how many it has, positions for
            each of them).
    """

    name: str
    positions: int
    norm: str | None
    lanes: tuple[tuple[str, int, int], ...] = ()


def trace_layers(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[LayerTrace, ...]:
    """The convolutions and linear layers in order of execution, from one image of zeros (C, H, W).

    Channel pruning changes no layer's positions but for `lanes`, which are not found here. So a trace of the dense
    model serves all its pruned forms.
    """
    order: list[tuple[str, int, tuple[int, int], Tensor]] = []
    norms: dict[tuple[int, int], tuple[str, Tensor]] = {}
    handles: list[RemovableHandle] = []

    def record(name: str) -> object:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            channels = len(module.get_parameter("weight"))
            order.append((name, output.numel() // channels, _identity(output), output))

        return hook

    def record_norm(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            norms[_identity(inputs[0])] = name, inputs[0]

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            handles.append(module.register_forward_hook(record(name)))  # type: ignore[arg-type]
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(record_norm(name)))  # type: ignore[arg-type]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), leaving_nothing(model):
            parameter = next(model.parameters())
            model(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    # All these tensors have been kept alive until here, so that no two of them share an id.
    return tuple(LayerTrace(name, positions, norms.get(tensor, (None,))[0]) for name, positions, tensor, _ in order)


def _identity(tensor: Tensor) -> tuple[int, int]:
    """Which tensor it is, and in what state: an operation in place between a layer and a norm makes it another."""
    return id(tensor), tensor._version


def unused_parameters(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Parameters, by name, that the logits do not depend on, as measured or in training, where auxiliary heads and the
    like may run; data-parallel training would wait for their gradients.
    """
    without = _without_gradient(copied(model).eval(), image_shape)
    without |= _without_gradient(copied(model).train(), image_shape)
    return tuple(name for name, each in model.named_parameters() if each.requires_grad and name in without)


def _without_gradient(model: nn.Module, image_shape: tuple[int, int, int]) -> set[str]:
    parameter = next(model.parameters())
    images = torch.zeros(2, *image_shape, device=parameter.device, dtype=parameter.dtype)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        logits_of(model(images)).float().sum().backward()
    return {name for name, each in model.named_parameters() if each.grad is None}


def upstream_parameters(model: nn.Module, layer: str, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Parameters, by name, that the input of a layer (its module path) depends on."""
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    inputs: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    try:
        with torch.enable_grad(), leaving_nothing(model):
            model(torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        model.train(was_training)
        handle.remove()
    if not inputs[0].requires_grad:
        return ()
    grads = torch.autograd.grad(inputs[0].float().sum(), list(named.values()), allow_unused=True)
    return tuple(name for name, grad in zip(named, grads, strict=True) if grad is not None)
