"""Torch-Pruning without timm, which it loads where it is installed, to count operations that are counted elsewhere
here: with timm come torch's compiler and torchvision, seconds of every process."""

from __future__ import annotations

import sys

_hide = "timm" not in sys.modules
if _hide:
    sys.modules["timm"] = None  # type: ignore[assignment] # an import of it fails, which Torch-Pruning expects
try:
    import torch_pruning
    from torch_pruning.dependency.index_mapping import _FlattenIndexMapping as FlattenIndexMapping
finally:
    if _hide:
        del sys.modules["timm"]

__all__ = ["FlattenIndexMapping", "torch_pruning"]
