"""What we use of Torch-Pruning, and the norms that we add to it: frozen batch norms, which it does not know, and
instance norms, which it cuts by half.

It is loaded without timm, which it imports where that is installed, to count operations that are counted elsewhere
here: with timm come torch's compiler and torchvision, seconds of every process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

_hide = "timm" not in sys.modules
if _hide:
    sys.modules["timm"] = None  # type: ignore[assignment] # an import of it fails, which Torch-Pruning expects
try:
    import torch_pruning
    from torch_pruning.dependency.index_mapping import _FlattenIndexMapping as FlattenIndexMapping
finally:
    if _hide:
        del sys.modules["timm"]

__all__ = ["FlattenIndexMapping", "channel_norm_pruners", "cuts", "torch_pruning"]


def channel_norm_pruners(model: nn.Module) -> dict[type[nn.Module], torch_pruning.BasePruningFunc]:
    """What cuts the norms of a model, by their class."""
    return {type(module): _ChannelNormPruner() for module in model.modules() if cuts(module)}


def cuts(module: nn.Module) -> bool:
    """Whether a module is such a norm, all of whose tensors have an element for each channel."""
    return isinstance(module, _InstanceNorm) or is_fixed_norm(module)


class _ChannelNormPruner(torch_pruning.BasePruningFunc):  # type: ignore[misc] # the library has no types
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


def is_fixed_norm(module: nn.Module) -> bool:
    """Whether a module normalises each channel by statistics of its own that no training moves, as torchvision's
    FrozenBatchNorm2d: it is told by its tensors, for everybody has one.
    """
    tensors = [*module.parameters(), *module.buffers()]
    names = {name for name, _ in module.named_buffers(recurse=False)}
    known = {"running_mean", "running_var"} <= names and not any(module.children())
    widths = {tensor.shape for tensor in tensors if tensor.numel() > 1 or tensor.ndim}
    return known and not isinstance(module, _TORCHS_OWN) and len(widths) == 1 and len(next(iter(widths))) == 1


_TORCHS_OWN = (nn.modules.batchnorm._NormBase,)
