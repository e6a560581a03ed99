"""The options of the job that writes a pruned model for other runtimes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ice_ray.exporter import Format


@dataclass(frozen=True)
class ExportConfig:
    """Write a pruned model as ONNX or as an exported program of PyTorch, checked against the module's logits."""

    model: Annotated[str, tyro.conf.Positional]
    """The pruned_model folder of a run, or its address."""
    format: Format = "onnx"
    """onnx (needs the extra: pip install 'ice_ray[onnx]'), or torch (a .pt2 file for torch.export.load)."""
    target: str | None = None
    """The file to write. [default: model.onnx or model.pt2 in the folder]"""
    builder: str | None = None
    """For a model of your own: package.module:function that builds its dense form, as for --model."""
