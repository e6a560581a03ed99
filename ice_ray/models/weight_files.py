"""Reading trained weights from a user's file. Never runs code from it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ice_ray.address import Place, place
from ice_ray.errors import UserError
from ice_ray.models.unreadable import fault_of, known_otherwise, load_safely

_HOLDERS = ("state_dict", "model", "model_state_dict", "net", "network", "module", "weights", "params")
"""Under which people save a state dict that is not alone in a file."""
_AVERAGED = (
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "params_ema",
)
_MOST_NAMED = 3
_DEEPEST = 4  # dicts in dicts


@dataclass(frozen=True)
class FileWeights:
    """What a file of weights holds.

    Attributes:
        tensors: by name.
        notes: what was chosen in reading it, for people.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = field(default=())


def load_state_dict(path: str | Path | Place) -> dict[str, Tensor]:
    """The tensors of a file of weights, as `read_weights` finds them."""
    return read_weights(path).tensors


def read_weights(path: str | Path | Place) -> FileWeights:
    """The tensors of a `.safetensors` file, or of a file that torch has saved with a state dict in it.

    The state dict may be bare, or under `state_dict`, `model` and the like; where averaged weights (`ema`) lie beside
    it, it is taken and they are not. Such files are read with `weights_only=True`: one that would run code is refused.

    Raises:
        UserError: no such file, or no state dict in it.
    """
    own = place(path)
    if own.is_dir():
        raise UserError(f"weights '{path}' is a folder: give the file of weights in it")
    if not own.is_file():
        raise UserError(f"weights '{path}': no such file")
    with own.on_disk() as file:
        if _is_safetensors(file) or (own.suffix == ".safetensors" and not zipfile.is_zipfile(file)):
            return FileWeights(_read_safetensors(file, own))
        return _plain(_read_pickle(file, own), own)


def _is_safetensors(file: Path) -> bool:
    """By what it begins with: the length of a header that is JSON."""
    with file.open("rb") as opened:
        begins = opened.read(9)
    return begins[8:] == b"{" and int.from_bytes(begins[:8], "little") < file.stat().st_size


def _read_safetensors(file: Path, path: Place) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError, KeyError, AttributeError) as error:  # the last two of types unknown to torch
        other = known_otherwise(file) or f"is not a safetensors file ({error})"
        raise UserError(f"weights '{path}' {other}") from error


def _read_pickle(file: Path, path: Place) -> object:
    try:
        return load_safely(file, "cpu")
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise UserError(f"weights '{path}' {fault_of(file, path, error, (*_HOLDERS, *_AVERAGED))}") from error


def _plain(loaded: object, path: Place) -> FileWeights:
    notes: list[str] = []
    for _ in range(_DEEPEST):
        found = _states(loaded)
        if not isinstance(loaded, Mapping) or not found:
            break
        key = _chosen(found, path)
        others = [each for each in found if each != key]
        if others:
            notes.append(
                f"weights '{path}' holds {key} and {', '.join(others)}: {key} is taken; for another one save it "
                f"alone, {_alone(path, others[0])}"
            )
        elif key not in _HOLDERS:
            notes.append(
                f"weights '{path}' holds {'averaged weights' if key in _AVERAGED else 'one set of weights'} alone: "
                f"{key} is taken"
            )
        loaded = loaded[key]
    if not isinstance(loaded, dict) or not any(isinstance(each, Tensor) for each in loaded.values()):
        raise UserError(f"weights '{path}' holds {_kind(loaded)}, not a state dict")
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise UserError(f"weights '{path}': entry '{key}' is {type(value).__name__}, not a tensor")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise UserError(
                f"weights '{path}': entry '{key}' is no plain tensor of numbers "
                f"({value.layout}, {value.dtype}, {value.device})"
            )
    return FileWeights({str(key): value.detach() for key, value in loaded.items()}, tuple(notes))


def _states(loaded: object) -> list[str]:
    """The keys of a dict under which state dicts lie: those that people use first, then averaged ones, then others."""
    if not isinstance(loaded, Mapping):
        return []
    known = [key for key in (*_HOLDERS, *_AVERAGED) if _is_state(loaded.get(key))]
    others = [str(key) for key, each in loaded.items() if isinstance(key, str) and _has_weights(each)]
    return list(dict.fromkeys((*known, *others)))


def _is_state(held: object, deepest: int = _DEEPEST) -> bool:
    """Whether there are tensors in it, at some depth: settings may lie under the same names."""
    return isinstance(held, Mapping) and any(
        isinstance(each, Tensor) or (deepest > 0 and _is_state(each, deepest - 1)) for each in held.values()
    )


def _has_weights(held: object) -> bool:
    """Whether a dict is a state dict whatever its key: it has a tensor of a layer's, by name."""
    return isinstance(held, Mapping) and any(
        isinstance(name, str) and isinstance(each, Tensor) and each.ndim > 1 for name, each in held.items()
    )


def _chosen(found: list[str], path: Place) -> str:
    """Of several state dicts in a file the trained one: averaged ones are not taken unless they are alone."""
    trained = [key for key in found if key in _HOLDERS]
    averaged = [key for key in found if key in _AVERAGED]
    others = [key for key in found if key not in averaged]
    keys = trained or others or averaged
    if len(keys) > 1:
        kind = "averaged weights" if keys is averaged else "weights"
        raise UserError(
            f"weights '{path}' holds {kind} under each of {', '.join(keys)}: save those that are meant alone, "
            f"{_alone(path, keys[0])}"
        )
    return keys[0]


def _alone(path: Place, key: str) -> str:
    return f"torch.save(torch.load({str(path)!r}, weights_only=True)[{key!r}], 'weights.pth')"


def _kind(loaded: object) -> str:
    if isinstance(loaded, dict) and loaded:
        return f"a dict with {', '.join(str(key) for key in list(loaded)[:_MOST_NAMED])}"
    return "an empty dict" if isinstance(loaded, dict) else type(loaded).__name__
