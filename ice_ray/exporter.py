"""A saved pruned model for other runtimes: ONNX, or PyTorch's own exported program; checked against the module."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.artifact import load_pruned, read_description
from ice_ray.errors import UserError
from ice_ray.export_formats import SUFFIXES, Format, check_format
from ice_ray.models.exported import write_module
from ice_ray.torch_defaults import usual_defaults


def export(
    path: str | StoragePath,
    format: Format,
    target: str | StoragePath | None = None,
    builder: Callable[..., nn.Module] | None = None,
) -> StoragePath:
    """Write a saved pruned model for another runtime, with a batch of any size, and return the file's path.

    Images go in as float32 (N, C, H, W) under the name `images`, normalised with the mean and std that `model.json`
    gives; logits come out as float32 (N, classes) under the name `logits`. The file is read back and run (ONNX by
    onnxruntime on the CPU), and is kept only if its logits of random images are those of the module, within 1e-4 of the
    greatest of them.

    Args:
        path: the `pruned_model` folder, or its address.
        format: `onnx` (a .onnx file with the class names and the preprocessing in its metadata; needs the extra
            `onnx`), or `torch` (a .pt2 file for `torch.export.load`).
        target: the file to write, in a folder that is made where it is not there. Without it `model.onnx` or
            `model.pt2` in the folder.
        builder: as for `load_pruned`.

    Raises:
        UserError: no such folder or format, the extra `onnx` is missing, the target cannot be written, or the model is
            none that can be exported.
    """
    check_format(format)
    folder = storage_path(path)
    file = folder / f"model.{SUFFIXES[format]}" if target is None else storage_path(target)
    write_exported(load_pruned(folder, builder), read_description(folder), format, file)
    return file


@usual_defaults()
def write_exported(loaded: nn.Module, description: Mapping[str, Any], format: Format, file: StoragePath) -> None:
    """Write a module, as `load_pruned` gives it, for another runtime; its memory layout changes.

    Args:
        description: what `model.json` says of it.

    Raises:
        UserError: the file cannot be written, or the model is none that can be exported.
    """
    kept = {key: json.dumps(description[key]) for key in ("class_names", "preprocessing") if key in description}
    try:
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            written = Path(scratch) / f"model.{SUFFIXES[format]}"
            write_module(loaded, tuple(description["image_shape"]), format, written, kept)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_now(written.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write '{file}' ({error.strerror or error})") from error
