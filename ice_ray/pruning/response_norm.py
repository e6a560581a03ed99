"""Global response norms (ConvNeXt V2): each channel by its energy over the mean energy of all.

Fewer channels make that mean another one. Where those that went were dead, only by their number: so with C channels of
which K stay, a weight and an eps that are C / K times as great give what the norm gave before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ice_ray.pruning.stand_in_forward import computing


def response_dim(module: nn.Module) -> int | None:
    """The dimension of a response norm's channels, 1 or -1; None for other modules. It is told by what it computes, for
    every library has a class of its own for it.

    >>> response_dim(nn.LayerNorm(4)) is None
    True
    """
    weight, bias, eps = module._parameters.get("weight"), module._parameters.get("bias"), getattr(module, "eps", None)
    if weight is None or bias is None or not isinstance(eps, float) or type(module).__module__.startswith("torch."):
        return None
    if any(module.children()) or weight.ndim != 1 or weight.shape != bias.shape or len(weight) < 2:
        return None
    drawn = torch.Generator().manual_seed(0)  # weights, too: a fresh norm's are zero
    own = {name: torch.rand(len(weight), generator=drawn).to(weight) for name in ("weight", "bias")}
    for dim, shape in ((-1, (2, 3, 3, len(weight))), (1, (2, len(weight), 3, 3))):
        x = torch.randn(shape, generator=drawn).to(weight)
        with torch.no_grad():
            try:
                given = functional_call(module, own, (x,))
            except Exception:  # anybody's module
                continue
            expected = _response(x, own["weight"], own["bias"], eps, dim)
            if isinstance(given, Tensor) and given.shape == x.shape and torch.allclose(given, expected, atol=1e-4):
                return dim
    return None


def keep_response(module: nn.Module, before: int, now: int) -> None:
    """Let a norm that has lost channels, in place, give the others what it gave them beside dead ones."""
    with torch.no_grad():
        module.get_parameter("weight").mul_(before / now)
    module.eps *= before / now  # type: ignore[operator, assignment]


@contextmanager
def by_channel(module: nn.Module) -> Iterator[None]:
    """While the block runs, a response norm shifts each channel and does no more."""
    dim = response_dim(module)
    assert dim is not None
    shape = [1, 1, 1, -1] if dim == -1 else [1, -1, 1, 1]
    with computing(module, lambda x: x + module.get_parameter("bias").view(shape)):
        yield


def _response(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dim: int) -> Tensor:
    shape, places = ([1, 1, 1, -1], (1, 2)) if dim == -1 else ([1, -1, 1, 1], (2, 3))
    energy = x.norm(dim=places, keepdim=True)
    response = energy / (energy.mean(dim, keepdim=True) + eps)
    result: Tensor = x + weight.view(shape) * x * response + bias.view(shape)
    return result
