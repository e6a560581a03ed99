"""The memory layout of weights and images: channels_last, which is faster, where a network works in it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ice_ray.models.answers import logits_of
from ice_ray.models.copies import probe_of
from ice_ray.models.ties import kept_ties

Layout = Literal["channels_last", "contiguous"]
"""`contiguous` is for networks that look at the order in memory, as with `x.view(x.size(0), -1)` on feature maps."""

_FORMATS: dict[Layout, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}
_MARK = "_ice_ray_layout"
_CLOSE = 1e-3
_ENOUGH_CHANNELS = 8


def layout_of(model: nn.Module) -> Layout:
    """The layout that `lay_out` gave a model or the one it was copied from."""
    marked: Layout = model.__dict__.get(_MARK, "channels_last")
    return marked


def lay_out(model: nn.Module, layout: Layout | None = None) -> None:
    """Give every 4-d weight fresh memory in a layout, in place; without one in that which the model has been given.

    Surgery leaves strides that depend on how the tensor was cut, and kernels choose their arithmetic by
    strides: without this a resumed run would differ in the last bits from the unbroken one. What is not safe in
    channels_last is contiguous from now on.
    """
    if not is_safe_in_channels_last(model):
        layout = "contiguous"
    if layout is not None:
        model.__dict__[_MARK] = layout
    wanted = _FORMATS[layout_of(model)]
    with kept_ties(model):
        for parameter in model.parameters():
            own = wanted if parameter.ndim == 4 else torch.contiguous_format
            fresh = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device).to(memory_format=own)
            parameter.data = fresh.copy_(parameter.data)
            parameter.grad = None


def mark_layout(model: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Fix the layout of a model that has none: the one that works; channels_last where the network raises."""
    if _MARK not in model.__dict__:
        try:
            model.__dict__[_MARK] = find_layout(model, image_shape)
        except Exception:  # the network is anybody's, and what is wrong with it shows where it is used
            model.__dict__[_MARK] = "channels_last"


def laid_out(images: Tensor, layout: Layout) -> Tensor:
    """Images (N, C, H, W) in a layout; not copied where they are in it already."""
    return images.contiguous(memory_format=_FORMATS[layout])


def is_safe_in_channels_last(model: nn.Module) -> bool:
    """Whether it has no pointwise convolution with a stride that reads few channels.

    On their way back torch's CPU kernels may write beyond their memory there, in channels_last alone, and not where
    filters are in groups (seen by glibc's checks with torch 2.15.0, on processors with AVX2). Nothing is raised; the
    process dies later, elsewhere, or not.
    """
    return all(each.weight.shape[1] >= _ENOUGH_CHANNELS for each in strided_pointwise(model))


def strided_pointwise(model: nn.Module) -> list[nn.Conv2d]:
    """Its pointwise convolutions with a stride, but for those in groups."""
    return [
        each
        for each in model.modules()
        if isinstance(each, nn.Conv2d)
        and each.groups == 1
        and set(each.kernel_size) == {1}
        and max(each.stride) > 1
        and not nn.parameter.is_lazy(each.weight)
    ]


def find_layout(model: nn.Module, image_shape: tuple[int, int, int]) -> Layout:
    """The layout to use a network in: found by trying, on copies, but for what must not be tried.

    A view may fail in one of the two, or, where strides are taken at their word, give other answers in silence.

    Raises:
        Exception: whatever the network raises where it takes no such images (C, H, W) in either.
    """
    expected = _tried(model, image_shape, "contiguous")
    if not is_safe_in_channels_last(model):
        return "contiguous"
    try:
        found = _tried(model, image_shape, "channels_last")
    except Exception:  # the network is anybody's
        return "contiguous"
    apart = (found - expected).abs().max() if found.shape == expected.shape else torch.tensor(torch.inf)
    # Where neither is finite, layout is not what is wrong.
    differs = bool(expected.isfinite().all()) and not bool(apart <= _CLOSE * expected.abs().max().clamp_min(1e-6))
    return "contiguous" if differs else "channels_last"


def _tried(model: nn.Module, image_shape: tuple[int, int, int], layout: Layout) -> Tensor:
    """Logits of two random images; a step of training is tried too, whose failure counts where it depends on layout."""
    probe, images = probe_of(model, image_shape)
    lay_out(probe, layout)
    images = laid_out(images, layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.no_grad():
            answers = logits_of(probe(images)).float()
        try:
            with torch.enable_grad():
                logits_of(probe.train()(images)).float().sum().backward()
        except Exception:
            if layout == "channels_last":
                raise
    return answers
