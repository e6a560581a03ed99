"""What names a path of a run: one of this machine, or an address on an object store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from ice_ray.errors import UserError
from ice_ray.local_path import LocalPath
from ice_ray.object_store import CREDENTIALS, OPTIONS, Address
from ice_ray.storage_path import StoragePath

__all__ = ["Address", "LocalPath", "StoragePath", "at_home", "storage_path"]
_VALID = "a folder, file:///folder, s3://bucket/path or gs://bucket/path"


def storage_path(text: str | Path | StoragePath) -> StoragePath:
    """A folder's or a file's path, or an address.

    >>> storage_path("runs/a"), str(storage_path("file:///data/runs")), str(storage_path("s3://bucket/runs/"))
    (LocalPath('runs/a'), '/data/runs', 's3://bucket/runs')

    Raises:
        UserError: an address that is none, of an unknown kind, or with credentials in it, which are not repeated.
    """
    if isinstance(text, Path):
        return LocalPath(text)
    if not isinstance(text, str):
        return text
    if ":/" not in text:
        return LocalPath(at_home(text))
    scheme, _, rest = text.partition("://")
    # No bucket's name has them. What may be a password is not repeated, here or where an address is unknown.
    if {"@", ":"} & set(rest.partition("/")[0]):
        raise UserError(f"{scheme}:// with a user or a password: {CREDENTIALS}")
    if not rest or (scheme != "file" and scheme not in OPTIONS):
        raise UserError(f"unknown kind of address '{scheme.partition(':')[0]}': give {_VALID}")
    return _folder(text) if scheme == "file" else _address(scheme, rest)


def at_home(path: str) -> str:
    """A path with the home folder in the place of a leading `~`, which no shell puts there behind `--option=`.

    >>> at_home("runs/~a"), at_home("s3://bucket/~")
    ('runs/~a', 's3://bucket/~')

    Raises:
        UserError: of a user who is not known here.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - pathlib's would fail where there is no such user
    if found.startswith("~"):
        raise UserError(f"'{path}': there is no such user here; a folder of that name is './{path}'")
    return found


def _folder(text: str) -> LocalPath:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or not parts.path:
        raise UserError(f"'{text}' is no folder of this machine: give file:///folder")
    return LocalPath(unquote(parts.path))


def _address(scheme: str, rest: str) -> Address:
    path, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    for name, _ in options:
        if name not in OPTIONS[scheme]:
            raise UserError(f"an address may have {', '.join(OPTIONS[scheme])} behind its '?', not '{name}'")
    if any("@" in value for _, value in options):
        raise UserError(f"{scheme}:// with a user or a password: {CREDENTIALS}")
    parts = path.rstrip("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or not path.isprintable():
        raise UserError(f"'{scheme}://{path}' is no address: give {_VALID}")
    return Address(scheme, "/".join(parts), tuple(sorted(options)))
