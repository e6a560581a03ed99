"""Operations of a forward pass by what they do to channels' labels, and what is asked of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


AS_IT_IS = _names(
    "clone detach alias _to_copy contiguous lift_fresh dropout native_dropout "
    "zeros_like ones_like empty_like full_like rand_like randn_like"
)
MOVES = _names(
    "view _unsafe_view reshape _reshape_alias permute transpose t unsqueeze squeeze expand split split_with_sizes "
    "unbind slice select index index_select cat stack flip repeat pixel_shuffle pixel_unshuffle channel_shuffle"
)
"""Not those with which the channels that are left come to lie otherwise than they did beside the others (roll)."""
ELEMENTWISE = _names("hardswish rsub prelu _prelu_kernel masked_fill log_sigmoid_forward")
MAKES = _names("new_zeros new_ones new_full new_empty")
"""Tensors of their own, of what they are given the type alone."""
RESAMPLES = _names(
    "max_pool2d max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d "
    "_upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "reflection_pad2d replication_pad2d"
)
REDUCES = _names("mean sum amax amin max min var std var_mean prod linalg_vector_norm norm")
WORDS = {
    "add": "a sum",
    "sub": "a difference",
    "mul": "a product",
    "div": "a quotient",
    "cat": "a concatenation",
    "stack": "a stack",
    "split": "a split",
    "split_with_sizes": "a split",
    "slice": "a slice",
    "mean": "a mean",
    "bmm": "a product of matrices",
    "mm": "a product of matrices",
    "addmm": "a product of matrices",
    "native_layer_norm": "a layer norm",
    "_fused_rms_norm": "a norm over channels",
    "linalg_vector_norm": "a norm",
    "convolution": "a convolution outside the layers",
    "_scaled_dot_product_flash_attention_for_cpu": "an attention",
    "_scaled_dot_product_attention_math": "an attention",
}


class Operation:
    """A call of one of torch's operations, and the labels of what it is given."""

    def __init__(
        self,
        func: Any,
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        flat: list[Any],
        labels: list[Tensor | None],
        result: Any,
    ) -> None:
        self.func, self._args, self._keywords, self.result = func, args, keywords, result
        self.flat, self.labels = flat, labels
        self.name = str(func._schema.name).partition("::")[2]
        if self.name.endswith("_") and not self.name.endswith("__"):
            self.name = self.name[:-1]

    @property
    def first(self) -> Tensor:
        """The labels of the first tensor that has any."""
        return next(each for each in self.labels if each is not None)

    def again(self) -> Any:
        """What it makes of labels; of tensors without any, of zeros. Numbers of elements stay as they are."""
        known = {
            id(tensor): labels for tensor, labels in zip(self.flat, self.labels, strict=True) if labels is not None
        }

        def own(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [own(each) for each in value]
            if isinstance(value, Tensor) and value.is_floating_point() and id(value) not in known:
                return torch.zeros(value.shape, dtype=torch.int64)
            return known.get(id(value), value)

        return self.func(*map(own, self._args), **{name: own(value) for name, value in self._keywords.items()})

    def _argument(self, name: str, default: Any) -> Any:
        args, keywords = self._args, self._keywords
        for number, each in enumerate(self.func._schema.arguments):
            if each.name == name:
                return keywords.get(name, args[number] if number < len(args) else default)
        return default

    @property
    def dim(self) -> int:
        """The dimension that it works along."""
        return int(self._argument("dim", 0))

    @property
    def dims(self) -> Sequence[int]:
        """The dimensions that a roll goes along."""
        return tuple(self._argument("dims", ()) or range(self.first.ndim))

    @property
    def flat_list(self) -> Sequence[int]:
        """The numbers of a padding."""
        return [int(each) for each in self._argument("pad", ())]

    @property
    def is_row(self) -> bool:
        """Whether what it gives has the shape of what it is given, and but one dimension: there is one order then."""
        shape = self.first.shape
        return bool(self.result.shape == shape and max(shape, default=1) == self.first.numel())

    @property
    def starts_a_run(self) -> bool:
        """Whether a slice begins where one of equally long runs does."""
        start, step = self._argument("start", 0) or 0, self._argument("step", 1)
        size, taken = self.first.shape[self.dim], self.result.shape[self.dim]
        return bool(step == 1 and (start % size) % taken == 0)

    @property
    def reduced_dims(self) -> list[int]:
        """The dimensions that a reduction goes over."""
        dims = self._argument("dim", None)
        count = self.first.ndim
        if dims is None or dims == []:
            return list(range(count))
        return [int(each) % count for each in (dims if isinstance(dims, (list, tuple)) else [dims])]

    @property
    def keeps_dims(self) -> bool:
        """Whether they stay, of size one."""
        return bool(self._argument("keepdim", False))


def varying_dims(labels: Tensor) -> list[int]:
    """The dimensions along which labels are not all the same."""
    found = []
    for dim in range(labels.ndim):
        if labels.shape[dim] > 1 and labels.stride(dim):
            own = narrowed(labels)
            if own.shape[dim] > 1 and bool((own != own.narrow(dim, 0, 1)).any()):
                found.append(dim)
    return found


def narrowed(labels: Tensor) -> Tensor:
    """Labels with one element along every dimension along which they are the same."""
    for dim in range(labels.ndim):
        if labels.shape[dim] > 1 and not labels.stride(dim):
            labels = labels.narrow(dim, 0, 1)
    for dim in range(labels.ndim):
        if labels.shape[dim] > 1 and bool((labels == labels.narrow(dim, 0, 1)).all()):
            labels = labels.narrow(dim, 0, 1)
    return labels


def narrowed_together(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The same of two of one shape, where neither varies."""
    mine, theirs = torch.broadcast_tensors(narrowed(one), narrowed(other))
    return mine, theirs


def along(labels: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """A channel's label at all of its positions."""
    shape = [1] * tensor.ndim
    shape[dim] = -1
    return labels.view(shape).expand(tensor.shape)
