"""Reading trained weights from a user's file. Never runs code from it."""

from __future__ import annotations

import warnings
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ice_ray.address import Place
from ice_ray.errors import UserError
from ice_ray.files import on_disk
from ice_ray.models.ties import completed


def load_state_dict(path: str | Place) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pth`/`.th`/`.pt` with a state dict.

    The state dict may be bare or under `state_dict` or `model`, with or without the `module.` prefix that
    DataParallel leaves. Such files are read with `weights_only=True`: one that would run code is refused.

    Raises:
        UserError: no such file, or no state dict in it.
    """
    path = Path(path) if isinstance(path, str) else path
    if not path.is_file():
        raise UserError(f"weights '{path}': no such file")
    with on_disk(path) as file:
        return _read(file, path)


def _read(file: Path, path: Place) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"weights '{path}' is not a safetensors file ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols, just before refusing what they hold
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"weights '{path}' is no file of plain tensors that can be read safely ({first_line[:120]})"
        ) from error
    return _plain(loaded, path)


def _plain(loaded: object, path: Place) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"weights '{path}' holds {type(loaded).__name__}, not a state dict")
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise UserError(f"weights '{path}': entry '{key}' is {type(value).__name__}, not a tensor")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise UserError(
                f"weights '{path}': entry '{key}' is no plain tensor of numbers ({value.layout}, {value.dtype})"
            )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def fit_weights(model: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Load `weights` into `model` in place; every key and shape must agree.

    Raises:
        UserError: keys missing, unknown or of another shape, the first few named.
    """
    own, weights = model.state_dict(), completed(model, weights, origin)
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(weights) - optional)
    unknown = sorted(set(weights) - set(own))
    shapes = [
        f"{key} is {tuple(weights[key].shape)} where the model has {tuple(own[key].shape)}"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    faults = [f"missing {_some(missing)}"] if missing else []
    faults += [f"unknown {_some(unknown)}"] if unknown else []
    faults += [_some(shapes)] if shapes else []
    if faults:
        raise UserError(f"weights '{origin}' do not fit the model: {'; '.join(faults)}; check --model")
    not_finite = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if not_finite:
        raise UserError(f"weights '{origin}' hold NaN or infinity in {_some(not_finite)}")
    model.load_state_dict(weights, strict=False)


def _some(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
