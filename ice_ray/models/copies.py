"""Networks copied, filled with weights, and looked at, whatever their passes keep in them: features, caches, losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_OF_TORCH = frozenset(nn.Module().__dict__)
"""What every module has: weights, buffers, parts, hooks."""


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; of what a pass has kept in the network it has the values, not the history, which torch copies for
    nobody.
    """
    with _WithoutHistory():
        return copy.deepcopy(model)


class _WithoutHistory(TorchFunctionMode):
    """Copies of tensors that came of others are copies of their values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def fill(model: nn.Module, weights: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load weights into a network, in place; what it has worked out of its former ones when it entered its mode (such
    as a table of biases) it works out anew.
    """
    model.load_state_dict(weights, strict=strict)
    mode = model.training
    model.train(not mode)
    model.train(mode)


@contextmanager
def leaving_nothing(model: nn.Module) -> Iterator[None]:
    """Whatever passes within the block keep in a network, beside its weights and buffers, is gone afterwards: a cache
    that is filled in looking at it would outlive the weights that it is of.
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
