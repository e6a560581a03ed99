"""What is wrong with a file that torch does not read safely, and the lines that mend it. Runs no code from it."""

from __future__ import annotations

import re
import textwrap
import warnings
import zipfile
from pathlib import Path

import torch

from ice_ray.address import StoragePath

_MOST_NAMED = 3
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
    """In place of an object of any class, and of a call of any function: it does nothing."""

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
    """What the file holds, with nothing in place of every object and call that is not of torch's safe ones; None
    where that cannot be had. It is still read with `weights_only=True`.
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
