"""Reading files of weights without running code in them; what cannot be read is refused with what mends it."""

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

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError

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


def load_state_dict(path: str | Path | StoragePath) -> dict[str, Tensor]:
    """The tensors of a file of weights, as `read_weights` finds them."""
    return read_weights(path).tensors


def read_weights(path: str | Path | StoragePath) -> FileWeights:
    """The tensors of a `.safetensors` file, or of a file that torch has saved with a state dict in it.

    The state dict may be bare, or under `state_dict`, `model` and the like; where averaged weights (`ema`) lie beside
    it, it is taken and they are not. Such files are read with `weights_only=True`: one that would run code is refused.

    Raises:
        UserError: no such file, or no state dict in it.
    """
    own = storage_path(path)
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


def _read_safetensors(file: Path, path: StoragePath) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError, KeyError, AttributeError) as error:  # the last two of types unknown to torch
        other = known_otherwise(file) or f"is not a safetensors file ({error})"
        raise UserError(f"weights '{path}' {other}") from error


def _read_pickle(file: Path, path: StoragePath) -> object:
    try:
        return load_safely(file, "cpu")
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise UserError(f"weights '{path}' {fault_of(file, path, error, (*_HOLDERS, *_AVERAGED))}") from error


def _plain(loaded: object, path: StoragePath) -> FileWeights:
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


def _chosen(found: list[str], path: StoragePath) -> str:
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


def _alone(path: StoragePath, key: str) -> str:
    return f"torch.save(torch.load({str(path)!r}, weights_only=True)[{key!r}], 'weights.pth')"


def _kind(loaded: object) -> str:
    if isinstance(loaded, dict) and loaded:
        return f"a dict with {', '.join(str(key) for key in list(loaded)[:_MOST_NAMED])}"
    return "an empty dict" if isinstance(loaded, dict) else type(loaded).__name__


_MOST_CLASSES = 300
_BEGINNINGS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"\x1f\x8b", "is packed with gzip: unpack it"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them: give weights that torch or safetensors has saved"),
    (b"<", "is a web page, not weights: download it again"),
)
_EITHER = "held.state_dict() if hasattr(held, 'state_dict') else held['state_dict']"
_LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch's older files begin with
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class _Inert:
    """Stands for an object of any class, or a call of any function, and does nothing."""

    def __new__(cls, *given: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def known_otherwise(file: Path) -> str | None:
    """What a file is by what it begins with, if that is known to be no weights."""
    begins = _begins(file).lstrip()
    if not file.stat().st_size:
        return "is empty: download or save it again"
    return next((said for beginning, said in _BEGINNINGS if begins.startswith(beginning)), None)


def load_safely(file: Path, device: str) -> object:
    """What torch has saved in a file, whatever its name: torch itself takes the word of a suffix for it."""
    with file.open("rb") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unusual pickle protocols, just before refusing what they hold
        held: object = torch.load(opened, map_location=device, weights_only=True)
    return held


def fault_of(file: Path, path: StoragePath, error: Exception, holders: tuple[str, ...]) -> str:
    """In words, what is wrong with a file that torch has refused with `error`.

    Args:
        file: on this machine.
        path: as people know it.
        holders: keys under which a state dict may lie in it, the likeliest first.
    """
    other = known_otherwise(file)
    if other:
        return other
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
        return _with_classes(classes, file, path, holders)
    if _is_bare_pickle(file):
        return (
            "cannot be read safely: it is a pickle that torch has not saved. Where you trust it: "
            f"torch.save({_read(file, path)}, 'weights.pth')"
        )
    if not members and not _begins(file).startswith(b"\x80"):
        return "is no file that torch has saved, or is cut short: nothing in it can be read safely"
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("WeightsUnpickler error:")
    first = ((text[2] or text[0]).strip().splitlines() or [type(error).__name__])[0]
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
        found = _GLOBAL.findall(str(error))[:1]
    return sorted(each for each in found if re.fullmatch(r"[\w.<>]+", each))


def _with_classes(classes: list[str], file: Path, path: StoragePath, holders: tuple[str, ...]) -> str:
    more = f" and {len(classes) - _MOST_NAMED} more" if len(classes) > _MOST_NAMED else ""
    whole = any(each.startswith("torch.nn.modules.") for each in classes)
    outline = _outline(file)
    part = _EITHER if outline is None else _part(outline, holders)
    return (
        f"cannot be read safely: it holds {'a whole module' if whole else 'more than tensors'} (of class "
        f"{', '.join(classes[:_MOST_NAMED])}{more}). Where you trust it, save a bare state dict: "
        f"held = {_read(file, path)}; torch.save({part}, 'weights.pth')"
    )


def _outline(file: Path) -> object | None:
    """What the file holds, with placeholders for objects and calls that are not of torch's safe ones; None where that
    cannot be found out. Read with `weights_only=True`.
    """
    known: dict[str, type] = {}
    while len(known) < _MOST_CLASSES:
        try:
            with torch.serialization.safe_globals([(each, name) for name, each in known.items()]):
                return load_safely(file, "meta")
        except Exception as error:  # of one class more, or of something that is no outline's
            name = next(iter(_GLOBAL.findall(str(error))), "")
            if not name or name in known:
                return None
            known[name] = type("Inert", (_Inert,), {})
    return None


def _part(held: object, holders: tuple[str, ...]) -> str:
    """The expression for the state dict in what was read, `held`."""
    name = "held"
    key = next((each for each in holders if isinstance(held, dict) and each in held), None)
    if key is not None and isinstance(held, dict):
        held, name = held[key], f"held[{key!r}]"
    if isinstance(held, _Inert):
        return f"{name}.state_dict()"
    if not isinstance(held, dict) or not any(isinstance(each, _Inert) for each in held.values()):
        return name
    if any(isinstance(each, torch.Tensor) for each in held.values()):
        return f"{{key: each for key, each in {name}.items() if isinstance(each, torch.Tensor)}}"
    return f"{{key: torch.as_tensor(each) for key, each in {name}.items()}}"


def _is_bare_pickle(file: Path) -> bool:
    return _begins(file).startswith(b"\x80") and _LEGACY not in _begins(file)


def _begins(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(64)


def _read(file: Path, path: StoragePath) -> str:
    """The expression that reads all of a file, whatever code it holds."""
    if _is_bare_pickle(file):
        return f"pickle.load(open({str(path)!r}, 'rb'))"
    return f"torch.load({str(path)!r}, weights_only=False)"
