"""What a convolution or a linear layer computes."""

from __future__ import annotations

from torch import nn


def computes_as_usual(layer: nn.Module) -> bool:
    """Whether a layer computes what torch's own convolutions and linear layers do: some subclasses standardise their
    weights first.
    """
    if isinstance(layer, nn.Conv2d):
        return type(layer).forward is nn.Conv2d.forward and type(layer)._conv_forward is nn.Conv2d._conv_forward
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


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
