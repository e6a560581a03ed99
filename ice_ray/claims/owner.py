"""The process that owns a claim, and whether it is alive."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

State = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True)
class Owner:
    """A process that holds a claim.

    Attributes:
        id: drawn for this claim alone.
        host: for people.
        within: where its number means this process: the host, its start, and the namespace. Empty where nobody can
            tell: a number may then be another process's.
        pid: its number there.
        began: when the process did, in the system's ticks; empty where that is not known.
        program: what it runs, for people.
        since: when the claim was made, by its own clock, for people.
    """

    id: str
    host: str
    within: str
    pid: int
    began: str
    program: str
    since: str

    @classmethod
    def here(cls, program: str) -> Owner:
        """This process, with a claim to be made."""
        pid, now = os.getpid(), datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00")
        return cls(secrets.token_hex(8), socket.gethostname(), _within(), pid, _began(pid) or "", program, f"{now} UTC")

    @classmethod
    def of(cls, content: bytes) -> Owner | None:
        """As `content` gave it; None where that is damaged, or not all written yet."""
        try:
            owner = cls(**json.loads(content))
        except (ValueError, TypeError):
            return None
        plain = all(isinstance(value, str) for name, value in vars(owner).items() if name != "pid")
        return owner if plain and owner.id.isalnum() and isinstance(owner.pid, int) and owner.pid > 0 else None

    @property
    def content(self) -> bytes:
        """What is written of it."""
        return json.dumps(asdict(self)).encode()

    @property
    def state(self) -> State:
        """Whether its process is there, as far as that can be seen from this one."""
        if not self.within or self.within != _within():
            return "unknown"
        began = _began(self.pid)
        if began is None:
            return "gone"
        if not began or not self.began:
            return "unknown"
        return "alive" if began == self.began else "gone"

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid} on host {self.host}, since {self.since})"


def _within() -> str:
    if sys.platform != "linux":
        return socket.gethostname()
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {start} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """When a process began; None where there is none, empty where that is all that can be seen of it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass  # somebody else's
    try:
        # After the name, which may hold anything: the state, 18 numbers, then the start.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return ""
