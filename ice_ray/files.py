"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import Tensor

from ice_ray.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, flushed to disk and renamed to it when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    with atomic_path(path) as temporary:
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary, metadata)


def tensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that `write_tensors` would write of them, without metadata."""
    return len(safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
