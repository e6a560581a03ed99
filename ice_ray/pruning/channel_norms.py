"""Norms of single channels that Torch-Pruning does not know, or cuts by half: frozen batch norms, instance norms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from ice_ray.models.layers import is_fixed_norm
from ice_ray.pruning.torch_pruning import torch_pruning as tp


def channel_norm_pruners(model: nn.Module) -> dict[type[nn.Module], tp.BasePruningFunc]:
    """What cuts the norms of a model, by their class."""
    return {type(module): _ChannelNormPruner() for module in model.modules() if cuts(module)}


def cuts(module: nn.Module) -> bool:
    """Whether a module is such a norm, all of whose tensors have an element for each channel."""
    return isinstance(module, _InstanceNorm) or is_fixed_norm(module)


class _ChannelNormPruner(tp.BasePruningFunc):  # type: ignore[misc] # the library has no types
    """Takes the same channels out of every tensor of a norm."""

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        width, gone = self.get_out_channels(layer), set(idxs)
        kept = torch.tensor([index for index in range(width) if index not in gone])
        for name, tensor in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(_left(tensor, kept)))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            if buffer.ndim:
                setattr(layer, name, _left(buffer, kept))
        for name in ("num_features", "num_channels"):
            if hasattr(layer, name):
                setattr(layer, name, len(kept))
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> int:
        if isinstance(layer, _InstanceNorm):
            return layer.num_features
        return next(len(tensor) for tensor in (*layer.parameters(), *layer.buffers()) if tensor.ndim)

    def get_in_channels(self, layer: nn.Module) -> int:
        return self.get_out_channels(layer)


def _left(tensor: Tensor, kept: Tensor) -> Tensor:
    return tensor.detach().index_select(0, kept.to(tensor.device))
