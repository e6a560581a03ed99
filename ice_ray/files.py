"""Writing files so that a reader sees the old content or the new, never half of it; reading what may be damaged."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor

from ice_ray.errors import UserError
from ice_ray.patience import patiently


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary name beside `path`, which is flushed to disk and renamed to it when that went well.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    patiently(f"cannot write '{path}'", lambda: _write_whole(path, write))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    # Two nodes may have processes of the same number, and may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
        flush_names(path.parent)
    finally:
        with suppress(OSError):  # what went wrong before says more
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """See that the content of a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_names(folder: Path) -> None:
    """See that the names in a folder are on the disk, where the storage knows how."""
    with suppress(OSError):
        flush(folder)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    patiently(f"cannot make '{path}'", lambda: path.mkdir(parents=True, exist_ok=True))


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, on the disk when this returns. A line that was left unfinished there is closed first.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    patiently(f"cannot write '{path}'", lambda: _append_line(path, line))


def _append_line(path: Path, line: str) -> None:
    with path.open("ab") as file:
        torn = file.tell() > 0 and not _ends_a_line(path)
        file.write(("\n" * torn + line + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that are text; none where it is not there."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(UnicodeDecodeError):
            lines.append(line.decode())
    return lines


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What goes wrong in the block is put down to the file that a run wrote and that is read there.

    Raises:
        UserError: the file is missing, cut short, edited, or of another version.
    """
    try:
        yield
    # JSON's own faults and pyarrow's are kinds of ValueError; brackets within brackets without end are the last.
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"'{path}' is missing or damaged ({type(error).__name__}: {said})") from error


def parse_yaml(text: str, origin: str) -> Any:
    """The plain values of a YAML text; tags that would build anything else are refused.

    Raises:
        UserError: it is none.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise UserError(f"{origin} is not YAML ({(str(error).splitlines() or [type(error).__name__])[0]})") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file, atomically."""
    # As bytes: the library's own writer says in words alone what the system said in numbers.
    content = safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, metadata)
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def tensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that `write_tensors` would write of them, without metadata."""
    return len(safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}))


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
