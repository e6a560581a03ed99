"""A path of this machine, with all that a run asks of its storage."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path, PosixPath
from typing import Any

from ice_ray.errors import UserError
from ice_ray.retry import with_retries
from ice_ray.storage_path import StoragePath, text_lines


class LocalPath(PosixPath, StoragePath):
    """A path of this machine."""

    append_seconds = 0.0
    sharing = "mount one folder there on all nodes"

    @property
    def local(self) -> Path:
        return self

    @property
    def arrow(self) -> tuple[str, Any]:
        return str(self), None

    def shown(self) -> str:
        return str(self.relative_to(Path.cwd()) if self.is_relative_to(Path.cwd()) else self)

    def is_plain(self) -> bool:
        return stat.S_ISREG(self.lstat().st_mode)

    def sizes(self) -> dict[str, int]:
        return {path.name: path.size() for path in self.glob("*") if path.is_file()}

    def size(self) -> int:
        return self.stat().st_size

    def read_now(self) -> bytes:
        return self.read_bytes()

    def read_text(self, encoding: str | None = "utf-8", errors: str | None = "strict") -> str:
        """As it was written, carriage returns too, which `Path.read_text` turns into line feeds."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def lines(self) -> list[str]:
        return text_lines(self.read_bytes() if self.is_file() else b"")

    def on_disk(self) -> AbstractContextManager[Path]:
        return nullcontext(self)

    def write_now(self, content: bytes) -> None:
        self._write_whole(lambda temporary: temporary.write_bytes(content))

    def _write_whole(self, fill: Callable[[Path], object]) -> None:
        # Two nodes may have processes of the same number, and may write the same file.
        temporary = self.with_name(f".{self.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            fill(temporary)
            _flush(temporary)
            temporary.replace(self)
            self.parent._flush_names()
        finally:
            with suppress(OSError):  # what went wrong before says more
                temporary.unlink(missing_ok=True)

    def append_line(self, line: str) -> None:
        with_retries(f"cannot write '{self}'", lambda: self._append_line(line))

    def _append_line(self, line: str) -> None:
        with self.open("ab") as file:
            torn = file.tell() > 0 and not self._ends_a_line()
            file.write(("\n" * torn + line + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def _ends_a_line(self) -> bool:
        with self.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def append_now(self, content: bytes) -> None:
        with self.open("ab") as file:
            file.write(content)

    def missing_folders(self) -> Sequence[LocalPath]:
        return [folder for folder in (self, *self.parents) if not folder.exists()]

    def remove_folder(self) -> None:
        shutil.rmtree(self, ignore_errors=True)

    def stage(self, name: str) -> Path:
        folder = self / f"{name}-{secrets.token_hex(4)}"  # beside, so that it is renamed and not copied
        folder.make_folder()
        return folder

    def install(self, staged: Path, name: str, last: str) -> LocalPath:
        path = self / name
        with_retries(f"cannot rename '{staged}'", lambda: staged.replace(path))
        self._flush_names()
        return path

    def unfinished(self, staged: str, installed: str, last: str) -> list[StoragePath]:
        return list(self.glob(f"{staged}*"))

    def change(self, number: int) -> None:
        self.touch()  # the time is the storage's own

    def version(self) -> object:
        with self.open("rb") as file:  # opened, for a shared folder then asks its server
            return os.fstat(file.fileno()).st_mtime_ns

    def check_writable(self, what: str) -> None:
        nearest = next(path for path in (self, *self.parents) if path.exists())
        if not nearest.is_dir():
            raise UserError(f"{what} '{self}': '{nearest}' is no folder")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError(f"{what} '{self}': no permission to write into '{nearest}'")

    def _flush_names(self) -> None:
        """See that the names in the folder are on the disk, where the storage knows how."""
        with suppress(OSError):
            _flush(self)


def _flush(path: Path) -> None:
    """See that the content of a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
