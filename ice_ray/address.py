"""Where a run keeps what it keeps: a folder, or an address on an object store with the parts of pathlib's shape that
runs need.
"""

from __future__ import annotations

import errno
import fnmatch
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ice_ray.errors import UserError
from ice_ray.object_store import OPTIONS, Options, faults_of, file_system
from ice_ray.retry import with_retries

_Result = TypeVar("_Result")
_VALID = "a folder, file:///folder, s3://bucket/path or gs://bucket/path"
_CREDENTIALS = "the store's own variables and files, or the machine, give credentials"


@dataclass(frozen=True, order=True)
class Address:
    """An object, or what begins with its name: `s3://bucket/path`. There are no folders to be made there, and an object
    is there whole or not at all.

    Reading is patient with the store, as `ice_ray.retry` is; writing is not: `ice_ray.files` sees to that.

    Attributes:
        path: the bucket and the rest, as pyarrow has it.
        options: how the store is reached, where that is not its usual way.
    """

    scheme: str
    path: str
    options: Options = ()

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}" + (f"?{urlencode(self.options)}" if self.options else "")

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, f"{self.path}/{name}", self.options)

    @property
    def bucket(self) -> Address:
        """What all of it lies in."""
        return Address(self.scheme, self.path.partition("/")[0], self.options)

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """Of the last part."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Address:
        """What it lies below; of a bucket, itself."""
        return self.with_path(self.path.rpartition("/")[0] or self.path)

    def with_path(self, path: str) -> Address:
        """Another place of the same store."""
        return Address(self.scheme, path, self.options)

    @property
    def file_system(self) -> Any:
        """pyarrow's; `path` is a path on it."""
        with faults_of(str(self)):
            return file_system(self.scheme, self.bucket.path, self.options)

    def exists(self) -> bool:
        """Whether there is such an object, or any below it."""
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._kind() == "File"

    def is_dir(self) -> bool:
        """Whether any object is below it."""
        return self._kind() == "Directory"

    def iterdir(self) -> Iterator[Address]:
        """What lies directly below it, in order."""
        return (self.with_path(info.path) for info in self._below())

    def glob(self, pattern: str) -> Iterator[Address]:
        """What lies directly below it and has such a name, in order."""
        return (found for found in self.iterdir() if fnmatch.fnmatchcase(found.name, pattern))

    def sizes(self) -> dict[str, int]:
        """Bytes of the objects directly below it, by name."""
        return {info.base_name: info.size for info in self._below() if info.is_file}

    def read_bytes(self) -> bytes:
        """The content of the object.

        Raises:
            FileNotFoundError: there is none.
            StorageError: the store refused it, for longer than was worth waiting.
        """
        return self._with_retries(self.read_now)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The same, as text."""
        return self.read_bytes().decode(encoding)

    def read_now(self) -> bytes:
        """The content of the object, asked for once.

        Raises:
            OSError: there is none, or the store refused it.
        """
        with faults_of(str(self)), self.file_system.open_input_file(self.path) as file:
            content: bytes = file.read()
            return content

    def write_bytes(self, content: bytes) -> None:
        """Put an object there, in the place of what there was.

        Raises:
            OSError: the store refused it; what there was is still there.
        """
        # One call: were it several, an exception between them would leave what had been written so far.
        with faults_of(str(self)), self.file_system.open_output_stream(self.path) as stream:
            stream.write(content)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            OSError: the store refused it.
        """
        with faults_of(str(self)), suppress(*([FileNotFoundError] if missing_ok else [])):
            self.file_system.delete_file(self.path)

    def remove_all(self) -> None:
        """Remove all that lies below it.

        Raises:
            OSError: the store refused it.
        """
        with faults_of(str(self)), suppress(FileNotFoundError):
            self.file_system.delete_dir(self.path)

    def check(self) -> None:
        """Ask the store once whether it can be used.

        Raises:
            OSError: it does not answer, gives no access, or has no such bucket.
        """
        with faults_of(str(self)):
            self.file_system.get_file_info(self.path)
        with faults_of(str(self)), suppress(PermissionError):  # some may use what is below it, and not ask about itself
            if self.bucket._info().type.name == "NotFound":
                raise OSError("NO_SUCH_BUCKET")

    def _kind(self) -> str:
        return str(self._with_retries(self._info).type.name)

    def _info(self) -> Any:
        with faults_of(str(self)):
            return self.file_system.get_file_info(self.path)

    def _below(self) -> list[Any]:
        from pyarrow.fs import FileSelector

        def listed() -> list[Any]:
            with faults_of(str(self)):
                return list(self.file_system.get_file_info(FileSelector(self.path, allow_not_found=True)))

        return sorted(self._with_retries(listed), key=lambda info: info.path)

    def _with_retries(self, attempt: Callable[[], _Result]) -> _Result:
        return with_retries(f"cannot read '{self}'", attempt)


Place: TypeAlias = Path | Address
"""Where something of a run lies."""


def place(text: str | Place) -> Place:
    """A folder's or a file's path, or an address.

    >>> place("runs/a"), str(place("file:///data/runs")), str(place("s3://bucket/runs/"))
    (PosixPath('runs/a'), '/data/runs', 's3://bucket/runs')

    Raises:
        UserError: an address that is none, of an unknown kind, or with credentials in it, which are not repeated.
    """
    if not isinstance(text, str):
        return text
    if ":/" not in text:
        return Path(at_home(text))
    scheme, _, rest = text.partition("://")
    # No bucket's name has them. What may be a password is not repeated, here or where an address is unknown.
    if {"@", ":"} & set(rest.partition("/")[0]):
        raise UserError(f"{scheme}:// with a user or a password: {_CREDENTIALS}")
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


def _folder(text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or parts.query or not parts.path:
        raise UserError(f"'{text}' is no folder of this machine: give file:///folder")
    return Path(unquote(parts.path))


def _address(scheme: str, rest: str) -> Address:
    path, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    for name, _ in options:
        if name not in OPTIONS[scheme]:
            raise UserError(f"an address may have {', '.join(OPTIONS[scheme])} behind its '?', not '{name}'")
    if any("@" in value for _, value in options):
        raise UserError(f"{scheme}:// with a user or a password: {_CREDENTIALS}")
    parts = path.rstrip("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or not path.isprintable():
        raise UserError(f"'{scheme}://{path}' is no address: give {_VALID}")
    return Address(scheme, "/".join(parts), tuple(sorted(options)))


def resolved(found: Place) -> Place:
    """A path from the root on; an address as it is."""
    return found.resolve() if isinstance(found, Path) else found


def check_place(found: Place, what: str) -> None:
    """Whether an address can be used; a folder is not asked.

    Args:
        what: the option that named it, for people.

    Raises:
        UserError: it does not answer, gives no access, or has no such bucket.
    """
    if isinstance(found, Path):
        return
    try:
        found.check()
    except PermissionError as error:
        raise UserError(f"{what} '{found}': access denied; {_CREDENTIALS}") from error
    except OSError as error:
        mend = "" if error.errno == errno.ENXIO else "; is it up, and the endpoint right?"
        raise UserError(f"{what} '{found}' cannot be used ({error.strerror}){mend}") from error
