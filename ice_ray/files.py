"""Writing files so that a reader sees the old content or the new, never half of it; reading what may be damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError


def sha256(path: Path | StoragePath) -> str:
    """The digest of a file's content."""
    with storage_path(path).on_disk() as own, own.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def damage_named(path: Path | StoragePath) -> Iterator[None]:
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


def write_tensors(
    path: Path | StoragePath, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write one safetensors file, atomically."""
    # As bytes: the library's own writer says in words alone what the system said in numbers.
    storage_path(path).write(_packed(tensors, metadata))


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
        memory_of = tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
        if tensor.numel() and memory_of in names:
            aliases[name] = names[memory_of]
            continue
        names[memory_of] = name
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


def write_text(path: Path | StoragePath, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    storage_path(path).write(text.encode())


def write_json(path: Path | StoragePath, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
