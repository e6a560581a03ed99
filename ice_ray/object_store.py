"""An address on an object store, by the file systems that pyarrow (and so Ray) has for it.

A store has neither renaming nor appending, and needs no folders: what is put there is whole at once, and a line is an
object of its own.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from ice_ray.errors import UserError
from ice_ray.retry import with_retries
from ice_ray.storage_path import StoragePath, text_lines

_Result = TypeVar("_Result")
Options = tuple[tuple[str, str], ...]
# What may stand behind the question mark of an address. Credentials may not: addresses are printed and written down.
OPTIONS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CONNECT_SECONDS, _GS_RETRY_SECONDS = 10, 10
_LONGEST_WORDS = 200
_READERS = 16  # at once, of many small objects
CREDENTIALS = "the store's own variables and files, or the machine, give credentials"
# S3's words for it, then those of Google's store.
_DENIED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "OAuth2"),
)


@dataclass(frozen=True, order=True)
class Address(StoragePath):
    """An object, or what begins with its name: `s3://bucket/path`. What lies below it is listed in order.

    Attributes:
        path: the bucket and the rest, as pyarrow has it.
        options: how the store is reached, where that is not its usual way.
    """

    scheme: str
    path: str
    options: Options = ()

    append_seconds = 30.0  # each time the whole object is put there
    sharing = "give all nodes credentials for it, and the endpoint's variable if it has one"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}" + (f"?{urlencode(self.options)}" if self.options else "")

    def __truediv__(self, name: str) -> Address:
        return self.with_path(f"{self.path}/{name}")

    @property
    def bucket(self) -> Address:
        """What all of it lies in."""
        return self.with_path(self.path.partition("/")[0])

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> Address:
        return self.with_path(self.path.rpartition("/")[0] or self.path)

    def with_path(self, path: str) -> Address:
        """Another address of the same store."""
        return Address(self.scheme, path, self.options)

    @property
    def local(self) -> None:
        return None

    @property
    def arrow(self) -> tuple[str, Any]:
        return self.path, self.file_system

    @property
    def file_system(self) -> Any:
        """pyarrow's; `path` is a path on it."""
        with faults_of(str(self)):
            return file_system(self.scheme, self.bucket.path, self.options)

    def resolve(self) -> Address:
        return self

    def shown(self) -> str:
        return str(self)

    def exists(self) -> bool:
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        return self._kind() == "File"

    def is_dir(self) -> bool:
        return self._kind() == "Directory"

    def is_plain(self) -> bool:
        return True

    def iterdir(self) -> Iterator[Address]:
        return (self.with_path(info.path) for info in self._below())

    def glob(self, pattern: str) -> Iterator[Address]:
        return (found for found in self.iterdir() if fnmatch.fnmatchcase(found.name, pattern))

    def sizes(self) -> dict[str, int]:
        return {info.base_name: info.size for info in self._below() if info.is_file}

    def size(self) -> int:
        return self.parent.sizes()[self.name]

    def read_bytes(self) -> bytes:
        return self._with_retries(self.read_now)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_now(self) -> bytes:
        with faults_of(str(self)), self.file_system.open_input_file(self.path) as file:
            content: bytes = file.read()
            return content

    def lines(self) -> list[str]:
        content = self.read_bytes() if self.is_file() else b""
        with ThreadPoolExecutor(_READERS) as readers:
            return text_lines(b"\n".join([content, *readers.map(Address.read_bytes, self._lines.iterdir())]))

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, self.name)
            if self.is_dir():
                copy.mkdir()
                for name in self.sizes():
                    (copy / name).write_bytes((self / name).read_bytes())
            else:
                copy.write_bytes(self.read_bytes())
            yield copy

    def write_bytes(self, content: bytes) -> None:
        # One call: were it several, an exception between them would leave what had been written so far.
        with faults_of(str(self)), self.file_system.open_output_stream(self.path) as stream:
            stream.write(content)

    def write_now(self, content: bytes) -> None:
        self.write_bytes(content)

    def _write_whole(self, fill: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder, self.name))
            self.write_bytes(Path(folder, self.name).read_bytes())

    def append_line(self, line: str) -> None:
        # Named once: where it did arrive and the answer to that did not, the next attempt puts the same line there.
        (self._lines / f"{time.time_ns():020d}-{secrets.token_hex(4)}").write(line.encode())

    def append_now(self, content: bytes) -> None:
        before = b""
        with suppress(FileNotFoundError):
            before = self.read_now()
        self.write_bytes(before + content)

    def unlink(self, missing_ok: bool = False) -> None:
        with faults_of(str(self)), suppress(*([FileNotFoundError] if missing_ok else [])):
            self.file_system.delete_file(self.path)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        pass

    def missing_folders(self) -> Sequence[Address]:
        return []

    def rmdir(self) -> None:
        pass

    def remove_folder(self) -> None:
        with suppress(OSError), faults_of(str(self)):
            self.file_system.delete_dir(self.path)

    def stage(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=name))

    def install(self, staged: Path, name: str, last: str) -> Address:
        for file in sorted(staged.iterdir(), key=lambda file: file.name == last):
            (self / name / file.name).write(file.read_bytes())
        shutil.rmtree(staged, ignore_errors=True)
        return self / name

    def unfinished(self, staged: str, installed: str, last: str) -> list[StoragePath]:
        return [path for path in self.glob(f"{installed}*") if path.is_dir() and not (path / last).is_file()]

    def change(self, number: int) -> None:
        self.write_bytes(f"{number}".encode())

    def version(self) -> object:
        return self.read_now()

    def check(self, what: str) -> None:
        try:
            with faults_of(str(self)):
                self.file_system.get_file_info(self.path)
            # Some may use what is below it, and not ask about the bucket itself.
            with suppress(PermissionError):
                if self.bucket._info().type.name == "NotFound":
                    raise OSError(errno.ENXIO, "no such bucket")
        except PermissionError as error:
            raise UserError(f"{what} '{self}': access denied; {CREDENTIALS}") from error
        except OSError as error:
            mend = "" if error.errno == errno.ENXIO else "; is it up, and the endpoint right?"
            raise UserError(f"{what} '{self}' cannot be used ({error.strerror}){mend}") from error

    @property
    def _lines(self) -> Address:
        """Where its lines are, which has no end to append to. Their names have the order of their times."""
        return self.parent / f"{self.name}.lines"

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


@cache
def file_system(scheme: str, bucket: str, options: Options) -> Any:
    """pyarrow's, made once a process. Credentials are those that the store's own libraries find: from environment
    variables, from their files, or from the machine.

    Raises:
        UserError: this pyarrow was built without it, or an option or variable is none that it takes.
        OSError: the store does not say where the bucket is.
    """
    try:
        return _s3(bucket, dict(options)) if scheme == "s3" else _gs(dict(options))
    except ValueError as error:
        raise UserError(f"{scheme}://{bucket} cannot be reached as is asked for ({error})") from error
    except ImportError as error:
        raise UserError(f"the pyarrow that is installed here was built without {scheme}://") from error


def _s3(bucket: str, given: dict[str, str]) -> Any:
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    if "endpoint_override" not in given and (endpoint := _first(_ENDPOINTS)):
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"{_ENDPOINTS[-1]} must be http://HOST:PORT or https://HOST")
        given = {"scheme": parts.scheme, "endpoint_override": parts.netloc} | given
    if "region" not in given:
        region = _first(_REGIONS)
        if "endpoint_override" in given:
            given["region"] = region or "us-east-1"  # where the endpoint is one's own, few care
        else:
            try:
                given["region"] = resolve_s3_region(bucket)  # the bucket knows best
            except OSError:  # in China, say, it is not asked at the same place
                if region is None:
                    raise
                given["region"] = region
    # An object of one part goes up in one request, which is whole or not there.
    return S3FileSystem(**given, connect_timeout=_CONNECT_SECONDS, allow_delayed_open=True)


def _gs(given: dict[str, str]) -> Any:
    from pyarrow.fs import GcsFileSystem

    return GcsFileSystem(**given, retry_time_limit=timedelta(seconds=_GS_RETRY_SECONDS))


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.environ.get(name))), None)


@contextmanager
def faults_of(address: str) -> Iterator[None]:
    """pyarrow says in words alone what went wrong: give it the system's numbers, and the address for a name.

    Raises:
        OSError: what went wrong in the block.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from error
    except OSError as error:
        if error.filename is not None:  # it has both already
            raise
        raise OSError(*_understood(str(error)), address) from error


def _understood(words: str) -> tuple[int, str]:
    if "NO_SUCH_BUCKET" in words:
        return errno.ENXIO, "no such bucket"
    if any(name in words for name in _DENIED):
        return errno.EACCES, "access denied"
    said = " ".join((words.rpartition("AWS Error ")[2] or words).split())
    return errno.EIO, said[:_LONGEST_WORDS]
