"""Writing files so that a reader sees the old content or the new, never half of it; reading what may be damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

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


def write_text(path: Path | StoragePath, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    storage_path(path).write(text.encode())


def write_json(path: Path | StoragePath, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
