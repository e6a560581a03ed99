"""Writing files so that a reader sees the old content or the new, never half of it; reading what may be damaged.

A file lies in a folder or at an address. An object store has neither renaming nor appending, and needs no folders: what
is put there is whole at once, and a line is an object of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor

from ice_ray.address import Address, Place
from ice_ray.errors import UserError
from ice_ray.retry import with_retries

_READERS = 16  # at once, of many small objects


def write_whole(path: Place, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary name beside `path`, which is flushed to disk and renamed to it when that went well;
    for an address a temporary file of this machine, which is put there.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    with_retries(f"cannot write '{path}'", lambda: _write_whole(path, write))


def _write_whole(path: Place, write: Callable[[Path], object]) -> None:
    if isinstance(path, Address):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder, path.name))
            path.write_bytes(Path(folder, path.name).read_bytes())
        return
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


def make_folder(path: Place) -> None:
    """Make a folder and those above it, where they are not there; an address needs none.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    if isinstance(path, Path):
        with_retries(f"cannot make '{path}'", lambda: path.mkdir(parents=True, exist_ok=True))


def append_line(path: Place, line: str) -> None:
    """Add a line to a file, on the disk when this returns. A line that was left unfinished there is closed first.

    Raises:
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    if isinstance(path, Address):
        # Named once: where it did arrive and the answer to that did not, the next attempt puts the same line there.
        write_bytes(_lines_of(path) / f"{time.time_ns():020d}-{secrets.token_hex(4)}", line.encode())
    else:
        with_retries(f"cannot write '{path}'", lambda: _append_line(path, line))


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


def _lines_of(path: Address) -> Address:
    """Where the lines of a file are that has no end to append to. Their names have the order of their times."""
    return path.parent / f"{path.name}.lines"


def whole_lines(path: Place) -> list[str]:
    """The lines of a file that are text; none where it is not there."""
    content = path.read_bytes() if path.is_file() else b""
    if isinstance(path, Address):
        with ThreadPoolExecutor(_READERS) as readers:
            content = b"\n".join([content, *readers.map(Address.read_bytes, _lines_of(path).iterdir())])
    lines = []
    for line in content.split(b"\n") if content else ():
        with suppress(UnicodeDecodeError):
            lines.append(line.decode())
    return lines


def read_now(path: Place) -> bytes:
    """The content of a file, without patience.

    Raises:
        OSError: it is not there, or the storage refuses it.
    """
    return path.read_bytes() if isinstance(path, Path) else path.read_now()


@contextmanager
def on_disk(path: Place) -> Iterator[Path]:
    """A file, or a folder without those in it, as one of this machine: itself, or a copy that goes with the block.

    Raises:
        FileNotFoundError: there is no such file.
        StorageError: the storage refused it, for longer than was worth waiting.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        if path.is_dir():
            copy.mkdir()
            for name in path.sizes():
                (copy / name).write_bytes((path / name).read_bytes())
        else:
            copy.write_bytes(path.read_bytes())
        yield copy


def file_size(path: Place) -> int:
    """Bytes of a file."""
    return path.stat().st_size if isinstance(path, Path) else path.parent.sizes()[path.name]


def remove_folder(path: Place) -> None:
    """Remove a folder with all that is in it, as far as the storage lets that happen."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.remove_all()


def sha256(path: Place) -> str:
    """The digest of a file's content."""
    if isinstance(path, Address):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def damage_named(path: Place) -> Iterator[None]:
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


def write_bytes(path: Place, content: bytes) -> None:
    """Write `content`, atomically."""
    if isinstance(path, Address):
        with_retries(f"cannot write '{path}'", lambda: path.write_bytes(content))
    else:
        write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_tensors(path: Place, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file, atomically."""
    # As bytes: the library's own writer says in words alone what the system said in numbers.
    write_bytes(path, _packed(tensors, metadata))


def tensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that `write_tensors` would write of them, without metadata of its own."""
    return len(_packed(tensors))


def _packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. What is one tensor is in it once, under its first name; its other names are in the metadata,
    where the library's own `save_model` puts them.
    """
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    names: dict[object, str] = {}
    memory: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and place in names:
            aliases[name] = names[place]
            continue
        names[place] = name
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        kept[name] = own.clone() if storage in memory else own  # parts of one storage are tensors of their own here
        memory.add(storage)
    return bytes(safetensors.torch.save(kept, {**aliases, **(metadata or {})} or None))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` has written into a file of this machine: tensors by all their names, and the metadata.

    Raises:
        SafetensorError: it is no such file.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    aliases = {name: tensors[own] for name, own in metadata.items() if own in tensors and name not in tensors}
    return tensors | aliases, metadata


def write_text(path: Place, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Place, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
