"""Passes of a copy without operations that mix channels or depend on their number: others stand in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ice_ray.models.answers import logits_of
from ice_ray.models.kinds import computes_as_usual
from ice_ray.pruning.layer_norm import without_channels
from ice_ray.pruning.response_norm import by_channel, response_dim
from ice_ray.pruning.stand_in_forward import computing

_READERS = {"conv2d": 1, "linear": 1}
"""Torch's functions that take a layer's weights, by name, and the place of these among their arguments."""


class StandIns:
    """Passes of a network in which

    - a group norm only multiplies and shifts each channel, for statistics change with what else is in the group;
    - a response norm only shifts each channel, likewise;
    - a layer norm of all channels computes what that of those which are left is to compute (`without_channels`);
    - a layer that makes its weights from those it holds (that standardises them, over its inputs) takes what came of
      them, which from now on it holds;
    - layers' outputs are divided by their spread in the first of these passes, so that nothing fades or grows.

    Args:
        model: a copy, in eval mode, whose weights may change.
        images: (n, C, H, W).
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._model = model
        self._scales: dict[nn.Module, list[Tensor]] = {}
        self._layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        self._norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
        self._responses = [module for module in model.modules() if response_dim(module) is not None]
        self._take_up(images)

    def outputs(self, images: Tensor, without: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
        """The network's, without gradients.

        Args:
            without: by layer norm, (channels,) bool, which of its channels go.
        """
        calls: dict[nn.Module, int] = {}

        def scaled(module: nn.Module, _: object, output: Tensor) -> Tensor:
            known, call = self._scales.setdefault(module, []), calls.get(module, 0)
            calls[module] = call + 1
            if call == len(known):
                spread = output.std()
                known.append(spread if bool(spread > 0) and bool(spread.isfinite()) else spread.new_ones(()))
            return output / known[call]

        with ExitStack() as stack, torch.no_grad():
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(scaled).remove)
            for norm in self._norms:
                stack.enter_context(_within(norm, lambda own: _Function({"group_norm": _affine(own)})))
            for module in self._responses:
                stack.enter_context(by_channel(module))
            for name, gone in without.items():
                stack.enter_context(without_channels(self._model.get_submodule(name), gone))
            stack.enter_context(taking_weights_as_they_are(self._model))
            return logits_of(self._model(images))

    def _take_up(self, images: Tensor) -> None:
        """Replace the weights of layers that derive theirs by the derived ones."""
        unusual, made = _unusual_layers(self._model), dict[nn.Module, Tensor]()
        if not unusual:
            return
        with ExitStack() as stack, torch.no_grad():
            for layer in unusual:
                stack.enter_context(_within(layer, lambda own: _Function(_noting(own, made))))
            self._model(images)
            for layer, weight in made.items():
                layer.get_parameter("weight").copy_(weight)


@contextmanager
def taking_weights_as_they_are(model: nn.Module) -> Iterator[None]:
    """While the block runs, layers that derive their weights (standardised convolutions) use the weights that they
    hold.
    """
    with ExitStack() as stack:
        for layer in _unusual_layers(model):
            stack.enter_context(_within(layer, lambda own: _Function(_with_weights(own))))
        yield


def _unusual_layers(model: nn.Module) -> list[nn.Module]:
    layers = (module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return [layer for layer in layers if not computes_as_usual(layer)]


_Replacement = Callable[[Callable[..., Any], Sequence[Any], dict[str, Any]], Any]


class _Function(TorchFunctionMode):
    """Calls of some of torch's functions go to others."""

    def __init__(self, replacements: dict[str, _Replacement]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        replacement = self._replacements.get(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {})) if replacement is None else replacement(func, args, kwargs or {})


def _affine(norm: nn.GroupNorm) -> _Replacement:
    def replacement(_: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Tensor:
        given: Tensor = args[0] if args else keywords["input"]
        shape = (1, -1, *(1 for _ in given.shape[2:]))
        scaled = given * norm.weight.view(shape) if norm.affine else given.clone()
        return scaled + norm.bias.view(shape) if norm.affine and norm.bias is not None else scaled

    return replacement


def _with_weights(layer: nn.Module) -> dict[str, _Replacement]:
    """Use the weights that the layer holds, not those that it derives from them."""

    def replacement(func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        own, position = layer.get_parameter("weight"), _READERS[func.__name__]
        if len(args) > position and args[position].shape == own.shape:
            args = (*args[:position], own, *args[position + 1 :])
        return func(*args, **keywords)

    return dict.fromkeys(_READERS, replacement)


def _noting(layer: nn.Module, made: dict[nn.Module, Tensor]) -> dict[str, _Replacement]:
    def replacement(func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        position = _READERS[func.__name__]
        if len(args) > position and args[position].shape == layer.get_parameter("weight").shape:
            made[layer] = args[position].clone()
        return func(*args, **keywords)

    return dict.fromkeys(_READERS, replacement)


@contextmanager
def _within(module: nn.Module, mode: Callable[[Any], TorchFunctionMode]) -> Iterator[None]:
    """While the block runs, forward passes of a module are within a mode."""
    forward = module.forward

    def within(*args: Any, **keywords: Any) -> Any:
        with mode(module):
            return forward(*args, **keywords)

    with computing(module, within):
        yield
