"""A saved pruned model for other runtimes: ONNX, or PyTorch's own exported program; checked against the module."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.artifact import load_pruned, read_description
from ice_ray.errors import UserError
from ice_ray.export_formats import SUFFIXES, Format, check_format
from ice_ray.models.answers import Answering
from ice_ray.torch_defaults import usual_defaults

INPUT, OUTPUT = "images", "logits"

_TRACED_BATCH = 2  # of one image, the exporter would take the batch for fixed
_CHECKED_BATCHES = (1, 5)
_TOLERANCE = 1e-4
_Run = Callable[[Tensor], Tensor]


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
    loaded.to(memory_format=torch.contiguous_format)  # other runtimes have layouts of their own
    shape = tuple(description["image_shape"])
    module = _answering(loaded, shape)
    write = _write_onnx if format == "onnx" else _write_torch
    try:
        with tempfile.TemporaryDirectory(prefix="export-") as scratch:
            written = Path(scratch) / f"model.{SUFFIXES[format]}"
            _check(module, write(module, shape, description, written), shape)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_now(written.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write '{file}' ({error.strerror or error})") from error


@torch.inference_mode()
def _answering(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """With the logits alone for an output."""
    return module if isinstance(module(_images(1, shape)), Tensor) else Answering(module).eval()


def _write_torch(module: nn.Module, shape: tuple[int, ...], description: Mapping[str, Any], file: Path) -> _Run:
    program = _translated(lambda: torch.export.export(module, (_images(_TRACED_BATCH, shape),), dynamic_shapes=_ANY))
    torch.export.save(program, file)
    read: nn.Module = torch.export.load(file).module()
    return read


def _write_onnx(module: nn.Module, shape: tuple[int, ...], description: Mapping[str, Any], file: Path) -> _Run:
    import onnxruntime

    program = _translated(
        lambda: torch.onnx.export(
            module,
            (_images(_TRACED_BATCH, shape),),
            dynamo=True,
            dynamic_shapes=_ANY,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    )
    kept = {key: description[key] for key in ("class_names", "preprocessing") if key in description}
    program.model.metadata_props.update({key: json.dumps(value) for key, value in kept.items()})
    program.save(file, external_data=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


_ANY = ({0: torch.export.Dim("batch", min=1)},)


def _translated(translate: Callable[[], Any]) -> Any:
    """What an exporter makes of the module.

    Raises:
        UserError: whatever it raised, of many kinds and at length, in one line.
    """
    try:
        return translate()
    except Exception as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise UserError(f"the model cannot be exported ({type(error).__name__}: {first})") from error


@torch.inference_mode()
def _check(module: nn.Module, run: _Run, shape: tuple[int, ...]) -> None:
    """Raises UserError: the file gives other logits than the module."""
    for batch in _CHECKED_BATCHES:
        images = _images(batch, shape)
        expected = module(images)
        try:
            found = run(images)
        except Exception as error:  # a runtime's own
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"the exported model takes no batch of {batch} ({first:.200}): where the model's code has len(x), "
                "x.shape[0] may mend it"
            ) from error
        if found.shape != expected.shape:
            raise UserError(f"the exported model gives {tuple(found.shape)}, not logits of {tuple(expected.shape)}")
        apart, scale = float((found - expected).abs().max()), float(expected.abs().max())
        if not apart <= _TOLERANCE * max(1.0, scale):
            raise UserError(f"the exported model's logits are {apart:.2g} off (the greatest is {scale:.3g})")


def _images(batch: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
