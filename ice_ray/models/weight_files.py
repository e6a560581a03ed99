"""Reading trained weights from a user's file. Never runs code from it."""

from __future__ import annotations

import re
import textwrap
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ice_ray.address import Place
from ice_ray.errors import UserError
from ice_ray.files import on_disk

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


@dataclass(frozen=True)
class FileWeights:
    """What a file of weights holds.

    Attributes:
        tensors: by name.
        notes: what was chosen in reading it, for people.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = field(default=())


def load_state_dict(path: str | Place) -> dict[str, Tensor]:
    """The tensors of a file of weights, as `read_weights` finds them."""
    return read_weights(path).tensors


def read_weights(path: str | Place) -> FileWeights:
    """The tensors of a `.safetensors` file, or of a file that torch has saved with a state dict in it.

    The state dict may be bare, or under `state_dict`, `model` and the like; where averaged weights (`ema`) lie beside
    it, it is taken and they are not. Such files are read with `weights_only=True`: one that would run code is refused.

    Raises:
        UserError: no such file, or no state dict in it.
    """
    path = Path(path) if isinstance(path, str) else path
    if not path.is_file():
        raise UserError(f"weights '{path}': no such file")
    with on_disk(path) as file:
        if path.suffix == ".safetensors" or _is_safetensors(file):
            return FileWeights(_read_safetensors(file, path))
        return _plain(_read_pickle(file, path), path)


def _is_safetensors(file: Path) -> bool:
    """By what it begins with: the length of a header that is JSON."""
    with file.open("rb") as opened:
        begins = opened.read(9)
    return begins[8:] == b"{" and int.from_bytes(begins[:8], "little") < file.stat().st_size


def _read_safetensors(file: Path, path: Place) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError, KeyError, AttributeError) as error:  # the last two of types unknown to torch
        raise UserError(f"weights '{path}' is not a safetensors file ({error})") from error


def _read_pickle(file: Path, path: Place) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols, just before refusing what they hold
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise UserError(f"weights '{path}' {_unreadable(file, path, error)}") from error


def _unreadable(file: Path, path: Place, error: Exception) -> str:
    members = _members(file)
    if any(name.endswith("/constants.pkl") for name in members):
        return (
            "is a TorchScript archive: save its weights alone, "
            f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pth')"
        )
    if any("archive_format" in name for name in members):
        return (
            "is an exported program: save its weights alone, "
            f"torch.save(dict(torch.export.load({str(path)!r}).state_dict), 'weights.pth')"
        )
    if members and not any(name.endswith("data.pkl") for name in members):
        return f"is a zip archive without weights of torch in it ({members[0]}): give the file of weights itself"
    classes = _classes(file, error)
    if classes:
        return _with_classes(classes, path)
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    return f"is no file of plain tensors that can be read safely ({textwrap.shorten(first, 160, placeholder=' ...')})"


def _members(file: Path) -> list[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _classes(file: Path, error: Exception) -> list[str]:
    """Classes and functions that the file would call, by name; they are not looked up."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # not of torch's newer form, or damaged
        found = re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]
    return sorted(each for each in found if re.fullmatch(r"[\w.<>]+", each))


def _with_classes(classes: list[str], path: Place) -> str:
    more = f" and {len(classes) - _MOST_NAMED} more" if len(classes) > _MOST_NAMED else ""
    whole = any(each.startswith("torch.nn.modules.") for each in classes)
    part = "held.state_dict()" if whole else "held['state_dict']"
    return (
        f"cannot be read safely: it holds {'a whole module' if whole else 'more than tensors'} (of class "
        f"{', '.join(classes[:_MOST_NAMED])}{more}). Where you trust it, save a bare state dict: "
        f"held = torch.load({str(path)!r}, weights_only=False); torch.save({part}, 'weights.pth')"
    )


def _plain(loaded: object, path: Place) -> FileWeights:
    notes: list[str] = []
    while isinstance(loaded, dict):
        held = [key for key in (*_HOLDERS, *_AVERAGED) if _is_state(loaded.get(key))] or _under_other_names(loaded)
        if not held:
            break
        key = _chosen(held, path)
        averaged = [each for each in held if each in _AVERAGED and each != key]
        if averaged:
            notes.append(
                f"weights '{path}' holds {key} and {', '.join(averaged)}: {key} is taken; for the averaged ones save "
                f"them alone, torch.save(torch.load({str(path)!r}, weights_only=True)['{averaged[0]}'], 'weights.pth')"
            )
        elif key in _AVERAGED:
            notes.append(f"weights '{path}' holds averaged weights alone: {key} is taken")
        loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"weights '{path}' holds {_kind(loaded)}, not a state dict")
    for key, value in loaded.items():
        if not isinstance(value, Tensor):
            raise UserError(f"weights '{path}': entry '{key}' is {type(value).__name__}, not a tensor")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise UserError(
                f"weights '{path}': entry '{key}' is no plain tensor of numbers ({value.layout}, {value.dtype})"
            )
    return FileWeights({str(key): value.detach() for key, value in loaded.items()}, tuple(notes))


def _under_other_names(loaded: Mapping[object, object]) -> list[str]:
    """Keys of what can be state dicts alone (no optimizer's): where a file holds them under names of its own."""
    if any(isinstance(each, Tensor) and each.ndim for each in loaded.values()):
        return []  # it is one itself
    inner = {str(key): held for key, held in loaded.items() if isinstance(key, str) and isinstance(held, Mapping)}
    return [key for key, held in inner.items() if held and all(isinstance(each, Tensor) for each in held.values())]


def _is_state(held: object) -> bool:
    return isinstance(held, Mapping) and any(isinstance(each, (Tensor, Mapping)) for each in held.values())


def _chosen(held: list[str], path: Place) -> str:
    """Of several state dicts in a file the trained one: averaged ones are not taken unless they are alone."""
    trained = [key for key in held if key not in _AVERAGED]
    for keys, kind in ((trained, "weights"), (held, "averaged weights")):
        if len(keys) > 1 and (keys is trained or not trained):
            raise UserError(
                f"weights '{path}' holds {kind} under each of {', '.join(keys)}: save those that are meant alone, "
                f"torch.save(torch.load({str(path)!r}, weights_only=True)['{keys[0]}'], 'weights.pth')"
            )
    return (trained or held)[0]


def _kind(loaded: object) -> str:
    if isinstance(loaded, dict) and loaded:
        return f"a dict with {', '.join(str(key) for key in list(loaded)[:_MOST_NAMED])}"
    return "an empty dict" if isinstance(loaded, dict) else type(loaded).__name__
