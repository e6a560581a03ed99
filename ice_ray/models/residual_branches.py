"""Which layers' outputs are but terms of a sum: those that end residual branches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ice_ray.models.probe import probe_of

_ADDITIONS = frozenset({"add", "add_"})


def shortcut(function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any], term: Tensor) -> Any:
    """What a call of a torch function adds to a tensor: another of its shape; None where it does something else."""
    if getattr(function, "__name__", "") not in _ADDITIONS or keywords or len(arguments) != 2:
        return None
    others = [each for each in arguments if each is not term]
    is_sum = len(others) == 1 and isinstance(others[0], Tensor) and others[0].shape == term.shape
    return others[0] if is_sum else None


class _Uses(TorchFunctionMode):
    """Counts, by module, what is done with certain outputs: additions, and uses in all."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, Tensor] = {}  # kept, so that no other tensor takes the place of one
        self.sums: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if _has_tensor(result):  # shapes and the like are no use of it
            for name, output in list(self.outputs.items()):
                if any(each is output for each in _flat([*args, *given.values()])):
                    self.uses[name] += 1
                    self.sums[name] += shortcut(func, args, given, output) is not None
                    if result is output:
                        self.outputs[name] = output.clone()  # changed in place: what reads it now reads what came of it
        return result


def find_residual_branches(
    model: nn.Module, image_shape: tuple[int, int, int], ends: Mapping[str, str]
) -> frozenset[str]:
    """The layers whose output is added to something of its shape, and read by nothing else: seen in a pass of a copy.

    Args:
        ends: by layer, the module behind which its output is meant: itself, or its batch norm.
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
    return frozenset(each for each in ends if runs[each] == watch.uses[each] == watch.sums[each] == 1)


def _flat(values: Sequence[Any]) -> list[Any]:
    """With the elements of lists and tuples (a concatenation's)."""
    return [part for each in values for part in (each if isinstance(each, (list, tuple)) else [each])]


def _has_tensor(value: Any) -> bool:
    return any(isinstance(each, Tensor) for each in _flat([value]))
