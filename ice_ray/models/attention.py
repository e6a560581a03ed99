"""Attention modules of torch, torchvision and timm in a form that can do with fewer heads.

`nn.MultiheadAttention` checks that its heads together are as wide as what it reads, and torchvision's windowed
attention and timm's attention over channels (XCA) reshape to that width: none can lose a head. The first two use the
weights of their projections outside these layers' own forward passes, too, where nothing that watches layers sees them.
The modules here compute the same.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUMBERS_OF_HEADS = ("num_heads", "n_heads", "heads", "num_head", "n_head", "nhead", "num_attention_heads")
"""What modules call them."""
_WITH_WINDOWS = "torchvision.models.swin_transformer"
_OVER_CHANNELS = {"timm.models.edgenext": "CrossCovarianceAttn", "timm.models.xcit": "XCA"}


class MultiheadAttention(nn.Module):
    """What `nn.MultiheadAttention` computes, with any number of heads.

    Args:
        given: whose weights it takes over; one that `objection_to` has nothing against.

    Attributes:
        num_heads, head_dim: of which the projections' rows and columns are.
    """

    # torch's encoder layers ask for these, and leave their own fast path alone then.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, given: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = given.num_heads, given.head_dim
        self.dropout, self.batch_first = given.dropout, given.batch_first
        self.in_proj = _linear(given.in_proj_weight, given.in_proj_bias)
        self.out_proj = _linear(given.out_proj.weight, given.out_proj.bias)
        self.train(given.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As of `nn.MultiheadAttention`; a mask of three dimensions has one for each head that is left."""
        alone = query is key and key is value
        batched = query.dim() == 3
        given = [query] if alone else [query, key, value]
        if not batched:
            given = [each.unsqueeze(0) for each in given]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            given = [each.transpose(0, 1) for each in given]
        heads = [each.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for each in self._projected(given)]
        mask = _added(attn_mask, key_padding_mask, heads[0])
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = (heads[0] / math.sqrt(self.head_dim)) @ heads[1].mT
            weights = (weights if mask is None else weights + mask).softmax(dim=-1)
            weights = F.dropout(weights, dropout) if dropout else weights
            joined = weights @ heads[2]
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            joined = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask, dropout)
        output = self.out_proj(joined.transpose(1, 2).flatten(2))
        if not batched:
            return output.squeeze(0), weights
        return output if self.batch_first else output.transpose(0, 1), weights

    def _projected(self, given: Sequence[Tensor]) -> Sequence[Tensor]:
        """Queries, keys and values."""
        if len(given) == 1:
            return self.in_proj(given[0]).chunk(3, dim=-1)  # type: ignore[no-any-return]
        bias = self.in_proj.bias
        biases = [None] * 3 if bias is None else bias.chunk(3)
        parts = zip(given, self.in_proj.weight.chunk(3), biases, strict=True)
        return [F.linear(each, weight, own) for each, weight, own in parts]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer that has these very parameters."""
    layer = nn.Linear(weight.shape[1], len(weight), bias=False, device="meta")
    layer.register_parameter("weight", weight)  # type: ignore[arg-type] # parameters, all of them
    layer.register_parameter("bias", bias)  # type: ignore[arg-type]
    return layer


def _added(attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor) -> Tensor | None:
    """What is added to the logits of (images, heads, queries, keys), made from torch's masks."""
    added: Tensor | None = None
    for mask in (attn_mask, key_padding_mask):
        if mask is None:
            continue
        own = mask
        if mask.dtype == torch.bool:  # True: not to be looked at
            own = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, -torch.inf)
        if mask is key_padding_mask:
            own = own[:, None, None, :]
        elif own.dim() == 3:
            own = own.view(query.shape[0], -1, *own.shape[1:])
        added = own if added is None else added + own
    return added


class ShiftedWindowAttention(nn.Module):
    """What torchvision's `ShiftedWindowAttention` and `ShiftedWindowAttentionV2` compute (Liu et al. 2021 and 2022),
    with any number of heads.

    Args:
        given: whose layers and tensors it takes over.
    """

    qkv: nn.Linear
    proj: nn.Linear
    cpb_mlp: nn.Module
    logit_scale: Tensor
    relative_coords_table: Tensor
    relative_position_bias_table: Tensor
    relative_position_index: Tensor

    def __init__(self, given: nn.Module) -> None:
        super().__init__()
        own: Any = given
        self.num_heads, self.head_dim = own.num_heads, own.qkv.out_features // 3 // own.num_heads
        self.window_size, self.shift_size = tuple(own.window_size), tuple(own.shift_size)
        self.attention_dropout, self.dropout = own.attention_dropout, own.dropout
        for name, child in given.named_children():
            self.add_module(name, child)
        for name, parameter in given.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in given.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in given._non_persistent_buffers_set)
        self.train(given.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C), and so is what it gives."""
        height, width = x.shape[1:3]
        tall, wide = self.window_size
        padded = F.pad(x, (0, 0, 0, -width % wide, 0, -height % tall))
        size = padded.shape[1:3]
        # One window that holds everything needs no shift.
        shift = [
            own * (window < side) for own, window, side in zip(self.shift_size, self.window_size, size, strict=True)
        ]
        shifted = torch.roll(padded, (-shift[0], -shift[1]), (1, 2)) if any(shift) else padded
        attended = self._attend(self._windows(shifted), self._between(size, shift, x))
        whole = attended.unflatten(0, (x.shape[0], size[0] // tall, size[1] // wide)).unflatten(3, (tall, wide))
        whole = whole.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        whole = torch.roll(whole, shift, (1, 2)) if any(shift) else whole
        return whole[:, :height, :width].contiguous()

    def _windows(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to (N x windows, positions, C)."""
        tall, wide = self.window_size
        parts: Tensor = x.unflatten(2, (-1, wide)).unflatten(1, (-1, tall)).transpose(2, 3)
        return parts.flatten(3, 4).flatten(0, 2)

    def _between(self, size: Sequence[int], shift: Sequence[int], like: Tensor) -> Tensor | None:
        """(windows, positions, positions): what keeps parts apart that lie together by the shift alone."""
        if not any(shift):
            return None
        regions = like.new_zeros(1, *size, 1)
        for dim, (window, own) in enumerate(zip(self.window_size, shift, strict=True), start=1):
            if own:
                side = size[dim - 1]
                place = torch.arange(side, device=like.device)
                region = (place >= side - window).to(like.dtype) + (place >= side - own)
                regions = 3 * regions + region.view([-1 if each == dim else 1 for each in range(4)])
        of_window = self._windows(regions)[..., 0]
        return -100.0 * (of_window[:, :, None] != of_window[:, None]).to(like.dtype)

    def _attend(self, windows: Tensor, between: Tensor | None) -> Tensor:
        split = 3, self.num_heads, self.head_dim
        query, key, value = self.qkv(windows).unflatten(-1, split).permute(2, 0, 3, 1, 4)
        if hasattr(self, "logit_scale"):
            if self.qkv.bias is not None:  # the second version's keys have no bias
                key = key - self.qkv.bias.unflatten(0, split)[1][:, None]
            logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
            logits = logits * self.logit_scale.clamp(max=math.log(100.0)).exp()
        else:
            logits = query * self.head_dim**-0.5 @ key.mT
        logits = logits + self._bias()
        if between is not None:
            logits = (logits.unflatten(0, (-1, between.shape[0])) + between[:, None]).flatten(0, 1)
        weights = F.dropout(logits.softmax(dim=-1), self.attention_dropout, self.training)
        joined = (weights @ value).transpose(1, 2).flatten(2)
        output: Tensor = F.dropout(self.proj(joined), self.dropout, self.training)
        return output

    def _bias(self) -> Tensor:
        """(heads, positions, positions) for each two places of a window."""
        places, continuous = math.prod(self.window_size), hasattr(self, "cpb_mlp")
        table: Tensor = self.relative_coords_table if continuous else self.relative_position_bias_table
        table = self.cpb_mlp(table).flatten(0, -2) if continuous else table
        bias: Tensor = table[self.relative_position_index].view(places, places, -1).permute(2, 0, 1)
        return 16 * bias.sigmoid() if continuous else bias


class CrossCovarianceAttention(nn.Module):
    """What timm's `CrossCovarianceAttn` (EdgeNeXt) and `XCA` (XCiT) compute: attention of each head's channels to each
    other (El-Nouby et al. 2021), with any number of heads.

    Args:
        given: whose layers and tensors it takes over.
    """

    qkv: nn.Linear
    proj: nn.Linear
    temperature: Tensor

    def __init__(self, given: nn.Module) -> None:
        super().__init__()
        own: Any = given
        self.num_heads, self.head_dim = own.num_heads, own.proj.in_features // own.num_heads
        self.temperature = own.temperature
        self.qkv, self.attn_drop, self.proj, self.proj_drop = own.qkv, own.attn_drop, own.proj, own.proj_drop
        self.train(given.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, positions, C), and so is what it gives."""
        split = 3, self.num_heads, self.head_dim
        query, key, value = self.qkv(x).unflatten(-1, split).permute(2, 0, 3, 4, 1)
        logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * self.temperature
        attended = self.attn_drop(logits.softmax(dim=-1)) @ value
        output: Tensor = self.proj_drop(self.proj(attended.permute(0, 3, 1, 2).flatten(2)))
        return output


def number_of_heads(module: nn.Module) -> int | None:
    """How many heads a module says that it has, or None."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return None
    counts = (vars(module).get(name) for name in NUMBERS_OF_HEADS)
    return next((each for each in counts if isinstance(each, int) and not isinstance(each, bool) and each > 0), None)


def objection_to(module: nn.MultiheadAttention) -> str | None:
    """Why no module here can stand in for one, or None."""
    if type(module) is not nn.MultiheadAttention:
        return f"it is a {type(module).__name__}, which may do otherwise than nn.MultiheadAttention"
    if module.in_proj_weight is None:
        return "its keys or values are of another width than its queries (kdim, vdim)"
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds keys and values of its own (add_bias_kv, add_zero_attn)"
    return None


def with_open_heads(model: nn.Module, only: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Put modules that can lose heads in the place of torch's, torchvision's and timm's, in place; the tensors are the
    same.

    Args:
        only: module paths. [default: all]

    Returns:
        By path, those that were there.
    """
    found: dict[str, nn.Module] = {}
    for path, module in list(model.named_modules()):
        if (only is not None and path not in only) or not path:
            continue
        own: nn.Module
        if isinstance(module, nn.MultiheadAttention) and objection_to(module) is None:
            own = MultiheadAttention(module)
        elif _is_windowed(module):
            own = ShiftedWindowAttention(module)
        elif _is_over_channels(module):
            own = CrossCovarianceAttention(module)
        else:
            continue
        model.set_submodule(path, own)
        found[path] = module
    return found


def _is_windowed(module: nn.Module) -> bool:
    known = sys.modules.get(_WITH_WINDOWS)  # a module of a class there has loaded it
    return known is not None and type(module) in (known.ShiftedWindowAttention, known.ShiftedWindowAttentionV2)


def _is_over_channels(module: nn.Module) -> bool:
    known = ((sys.modules.get(place), name) for place, name in _OVER_CHANNELS.items())
    return any(place is not None and type(module) is getattr(place, name) for place, name in known)
