"""A module as a file for another runtime: ONNX, or PyTorch's own exported program; checked against the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ice_ray.errors import UserError
from ice_ray.export_formats import Format
from ice_ray.models.answers import Answering

INPUT, OUTPUT = "images", "logits"

_TRACED_BATCH = 2  # of one image, the exporter would take the batch for fixed
_CHECKED_BATCHES = (1, 5)
_TOLERANCE = 1e-4
_Run = Callable[[Tensor], Tensor]


def write_module(
    module: nn.Module,
    shape: tuple[int, int, int],
    format: Format,
    file: Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module for another runtime, images in under the name `images`, logits out under `logits`.

    The file is read back and run, and its logits are those of the module.

    Args:
        module: in eval mode on the CPU; its memory layout changes.
        shape: (C, H, W) of its images; a batch may have any number of them.
        file: to be written.
        metadata: by name, what an ONNX file holds besides.

    Raises:
        UserError: the model is none that can be exported.
        OSError: the file cannot be written.
    """
    module.to(memory_format=torch.contiguous_format)  # other runtimes have layouts of their own
    answering = _answering(module, shape)
    run = _write_torch(answering, shape, file) if format == "torch" else _write_onnx(answering, shape, file, metadata)
    _check(answering, run, shape)


@torch.inference_mode()
def _answering(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """With the logits alone for an output."""
    return module if isinstance(module(_images(1, shape)), Tensor) else Answering(module).eval()


def _write_torch(module: nn.Module, shape: tuple[int, ...], file: Path) -> _Run:
    program = _translated(lambda: torch.export.export(module, (_images(_TRACED_BATCH, shape),), dynamic_shapes=_ANY))
    torch.export.save(program, file)
    read: nn.Module = torch.export.load(file).module()
    return read


def _write_onnx(module: nn.Module, shape: tuple[int, ...], file: Path, metadata: Mapping[str, str] | None) -> _Run:
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
    program.model.metadata_props.update(metadata or {})
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
