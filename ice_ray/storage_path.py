"""Where a run keeps what it keeps: one interface for paths of this machine and addresses on an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ice_ray.retry import with_retries


class StoragePath(Protocol):
    """A file, a folder or an object, with pathlib's names for what both kinds can do.

    An object store is retried in reading, as `ice_ray.retry` does it. Writing is retried by `write`, `write_whole`,
    `append_line` and `make_folder`: they raise StorageError where the storage refuses for longer than is worth waiting.
    What is named `_now` is tried once, and raises OSError.
    """

    append_seconds: ClassVar[float]
    """How far apart `append_now` should be."""
    sharing: ClassVar[str]
    """What makes one visible from every node."""

    # As pathlib has them. What an address makes of them, `Address` says.

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def parent(self) -> StoragePath: ...
    def __truediv__(self, name: str) -> StoragePath: ...
    def exists(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def iterdir(self) -> Iterator[StoragePath]: ...
    def glob(self, pattern: str) -> Iterator[StoragePath]: ...
    def read_bytes(self) -> bytes: ...
    def read_text(self, encoding: str = "utf-8") -> str: ...
    def write_bytes(self, content: bytes) -> object: ...
    def unlink(self, missing_ok: bool = False) -> None: ...
    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None: ...
    def rmdir(self) -> None: ...
    def resolve(self) -> StoragePath: ...

    # What a run needs beyond that.

    @property
    def local(self) -> Path | None:
        """Itself, for what takes paths of this machine alone; None where it is none."""

    @property
    def arrow(self) -> tuple[str, Any]:
        """The path and pyarrow's file system, as Ray takes them; None for this machine's."""

    def shown(self) -> str:
        """As one would type it: a path from the working directory where it lies below that."""

    def is_plain(self) -> bool:
        """Whether what is there is neither a link nor a pipe nor a folder. An object always is.

        Raises:
            FileNotFoundError: there is nothing.
        """

    def sizes(self) -> dict[str, int]:
        """Bytes of the files directly below it, by name."""

    def size(self) -> int:
        """Bytes of the file."""

    def read_now(self) -> bytes:
        """The same, asked for once."""

    def lines(self) -> list[str]:
        """The lines of the file that are text; none where it is not there."""

    def on_disk(self) -> AbstractContextManager[Path]:
        """The file, or the folder without those in it, as one of this machine: itself, or a copy that goes with the
        block.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def write_now(self, content: bytes) -> None:
        """Put content there, whole: a reader sees what was there or this."""

    def write(self, content: bytes) -> None:
        """The same, retried."""
        with_retries(f"cannot write '{self}'", lambda: self.write_now(content))

    def write_whole(self, fill: Callable[[Path], object]) -> None:
        """Have `fill` write a temporary file of this machine, which takes its place when that went well."""
        with_retries(f"cannot write '{self}'", lambda: self._write_whole(fill))

    def _write_whole(self, fill: Callable[[Path], object]) -> None: ...

    def append_line(self, line: str) -> None:
        """Add a line, on the disk when this returns. A line that was left unfinished there is closed first."""

    def append_now(self, content: bytes) -> None:
        """Add to the end of the file, of which this is the only writer."""

    def make_folder(self) -> None:
        """Make the folder and those above it, where they are not there, retried."""
        with_retries(f"cannot make '{self}'", lambda: self.mkdir(parents=True, exist_ok=True))

    def missing_folders(self) -> Sequence[StoragePath]:
        """Those that `make_folder` would make, the innermost first."""

    def remove_folder(self) -> None:
        """Remove it with all that is below it, as far as the storage lets that happen."""

    def stage(self, name: str) -> Path:
        """An empty folder of this machine, which `install` gives a name below this one.

        Args:
            name: what it begins with here until then.
        """

    def install(self, staged: Path, name: str, last: str) -> StoragePath:
        """Give what `stage` made its name, with its files.

        Args:
            last: the file that comes last where not all come at once.
        """

    def unfinished(self, staged: str, installed: str, last: str) -> list[StoragePath]:
        """What was begun and never will be whole.

        Args:
            staged, installed: how names given to `stage` and to `install` begin.
            last: as for `install`.
        """

    def change(self, number: int) -> None:
        """Make `version` another, if the number is another, on a disk without room too."""

    def version(self) -> object:
        """What is another after each change, as the storage has it now.

        Raises:
            OSError: it does not say; FileNotFoundError where nothing is there.
        """

    def check(self, what: str) -> None:
        """Ask an object store once whether the address can be used; a path is not asked.

        Args:
            what: what named it, for people.

        Raises:
            UserError: it does not answer, gives no access, or has no such bucket.
        """
        return

    def check_writable(self, what: str) -> None:
        """Whether the folder is there or can be made, and written into; an address is not asked.

        Raises:
            UserError: it cannot.
        """
        return


def text_lines(content: bytes) -> list[str]:
    """The lines of `content` that are text."""
    lines = []
    for line in content.split(b"\n") if content else ():
        with suppress(UnicodeDecodeError):
            lines.append(line.decode())
    return lines
