"""Layer norms over channels (and RMS norms): each channel, less the mean of all, by the root of their mean square.

Fewer channels have another mean and another mean square, dead ones or not. A norm of C channels of which K are left
takes a weight sqrt(C / K) and an eps C / K times as great, and so gives each of them

    weight (x - m) / sqrt(s / C + eps) + bias,      m, s: mean of those left, sum of their squares about it,

which is what it gave before where those that went were zero and the mean of all was, too (of an RMS norm, whatever the
mean). Elsewhere it is an approximation, as any norm over other channels is. It stays a plain module of its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ice_ray.pruning.stand_in_forward import computing


def layer_norm_dim(module: nn.Module) -> int | None:
    """The dimension of a layer norm's channels, 1 or -1; None for other modules, and for norms without a weight that
    could make up for the number of channels. It is told by what it computes, for every library has classes of its own.

    >>> layer_norm_dim(nn.LayerNorm(4)), layer_norm_dim(nn.BatchNorm2d(4)), layer_norm_dim(nn.LayerNorm((4, 4)))
    (-1, None, None)
    """
    found = _form_of(module)
    return None if found is None else found[0]


def keep_scale(module: nn.Module, before: int, now: int) -> None:
    """Let a layer norm that is about to lose channels, in place, count those that go as zeros."""
    with torch.no_grad():
        module.get_parameter("weight").mul_((before / now) ** 0.5)
    module.eps *= before / now  # type: ignore[operator, assignment]
    if hasattr(module, "normalized_shape"):
        module.normalized_shape = type(module.normalized_shape)((now,))


@contextmanager
def without_channels(module: nn.Module, gone: Tensor) -> Iterator[None]:
    """While the block runs, a layer norm of all channels computes what one without some of them is to compute; these
    are zero.

    Args:
        gone: (channels,) bool.
    """
    form = _form_of(module)
    assert form is not None
    dim, is_centred = form
    weight, bias = module.get_parameter("weight"), module._parameters.get("bias")
    eps = float(module.eps)  # type: ignore[arg-type]

    def reduced(x: Tensor) -> Tensor:
        lost = gone.to(x.device)
        left = x.movedim(dim, -1).masked_fill(lost, 0.0)
        if is_centred:
            left = (left - left.sum(-1, keepdim=True) / int((~lost).sum())).masked_fill(lost, 0.0)
        given = weight * left / (left.square().sum(-1, keepdim=True) / len(lost) + eps).sqrt()
        given = given if bias is None else given + bias
        return given.masked_fill(lost, 0.0).movedim(-1, dim)

    with computing(module, reduced):
        yield


def _form_of(module: nn.Module) -> tuple[int, bool] | None:
    """The dimension of its channels, and whether it takes their mean off."""
    weight, bias, eps = module._parameters.get("weight"), module._parameters.get("bias"), getattr(module, "eps", None)
    if weight is None or weight.ndim != 1 or len(weight) < 2 or not isinstance(eps, float):
        return None
    if any(module.children()) or (bias is not None and bias.shape != weight.shape):
        return None
    drawn = torch.Generator().manual_seed(0)
    own = {name: torch.rand(len(weight), generator=drawn).to(weight) for name, _ in module.named_parameters()}
    for dim, shape in ((-1, (2, 3, 3, len(weight))), (1, (2, len(weight), 3, 3))):
        x = torch.randn(shape, generator=drawn).to(weight) + 1
        with torch.no_grad():
            try:
                given = functional_call(module, own, (x,))
            except Exception:  # anybody's module
                continue
            if not isinstance(given, Tensor) or given.shape != x.shape:
                continue
            for is_centred in (True, False):
                expected = _normed(x.movedim(dim, -1), own, eps, is_centred).movedim(-1, dim)
                if torch.allclose(given, expected, atol=1e-4):
                    return dim, is_centred
    return None


def _normed(x: Tensor, own: dict[str, Tensor], eps: float, is_centred: bool) -> Tensor:
    apart = x - x.mean(-1, keepdim=True) if is_centred else x
    given = own["weight"] * apart / (apart.square().mean(-1, keepdim=True) + eps).sqrt()
    return given + own["bias"] if "bias" in own else given
