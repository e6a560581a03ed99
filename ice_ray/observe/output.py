"""What a job says must never be what ends it: its output may be closed, full, or of another alphabet. A run keeps
it."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, cast

from ice_ray.address import StoragePath, storage_path

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ECONNRESET, errno.ENXIO)


class _Lasting:
    """A stream that takes every text: what it cannot encode is written out, what nobody takes is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # a closed stream is a ValueError
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def end(self) -> None:
        """What is still held goes out now or never: the interpreter would end with a code of its own."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._point_nowhere()

    def _lose(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _GONE:  # a full disk may have room again
            self._point_nowhere()

    def _point_nowhere(self) -> None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()


@contextmanager
def lasting_output() -> Iterator[None]:
    """While the block runs, standard output and standard error take whatever is written, whatever becomes of it."""
    before = sys.stdout, sys.stderr
    streams = [_Lasting(stream) if stream is not None else None for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield
    finally:
        for stream in streams:
            if stream is not None:
                stream.end()
        sys.stdout, sys.stderr = before


class RunLog:
    """The lines of a job that stay, as text in its run's folder. They are held until that is there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: StoragePath | None = None
        self._waiting, self._next = "", 0.0

    def add(self, text: str) -> None:
        """Some lines more. A log that cannot be written is nobody's fault here."""
        with self._lock:
            self._waiting += text if text.endswith("\n") else f"{text}\n"
            self._write()

    def begin(self, path: Path | StoragePath, command: str) -> None:
        """From now on into this file, behind what an earlier part of the run has left there."""
        with self._lock:
            if path == self._path:
                return
            self._path, self._next = storage_path(path), 0.0
            self._waiting = f"[{datetime.now(UTC).isoformat(timespec='seconds')}] {command}\n{self._waiting}"
            self._write()

    def end(self) -> None:
        """The job is over."""
        with self._lock:
            self._next = 0.0
            self._write()
            self._path, self._waiting = None, ""

    def is_kept(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def _write(self) -> None:
        if self._path is None or not self._waiting or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._path.append_seconds
        with suppress(OSError):
            self._path.append_now(self._waiting.encode(errors="backslashreplace"))
            self._waiting = ""


run_log = RunLog()
"""Of this process's job."""
