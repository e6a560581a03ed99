"""The processes that Ray has started for a job, found as the system knows them: nothing of Ray is asked or replaced."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Titles = tuple[str, ...]
# Tune wraps its trainables in a class of its own, which names the process while it is at work.
TRIAL_AT_WORK: Titles = ("ray::ResourceTrainable.train",)
TRIAL: Titles = ("ray::ResourceTrainable", "ray::PruningTrial")
MEMORY: Titles = ("ray::ActionCacheServer",)
WORKER: Titles = ("ray::RayTrainWorker",)
MESSENGER: Titles = ("ray::_Mailbox",)
CONTROLLER: Titles = ("ray::TrainController",)


@dataclass(frozen=True)
class Process:
    """One of them.

    Attributes:
        title: what it says it is at: "ray::PruningTrial.train".
        parent: its raylet, for a worker.
    """

    pid: int
    title: str
    parent: int

    def hold(self, titles: Titles) -> bool:
        """Stop it where it is; returns whether it was still at what such a title says. If not, it goes on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
            now = _read(Path("/proc") / str(self.pid))
            if now is not None and now.title.startswith(titles):
                return True
            os.kill(self.pid, signal.SIGCONT)
        return False

    def kill(self) -> None:
        """At once, without a word to it; nothing where it has ended already."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def processes_below(ancestor: int) -> list[Process]:
    """All that descend from a process, those first that were started first."""
    found = [each for entry in Path("/proc").glob("[0-9]*") if (each := _read(entry)) is not None]
    children: dict[int, list[Process]] = {}
    for each in found:
        children.setdefault(each.parent, []).append(each)
    below, todo = list[Process](), [ancestor]
    while todo:
        own = children.get(todo.pop(), [])
        below += own
        todo += [each.pid for each in own]
    return sorted(below, key=lambda each: each.pid)


def workers(titles: Titles, ancestor: int | None = None) -> list[Process]:
    """The processes of such a title below a process; below this one without it."""
    return [each for each in processes_below(ancestor or os.getpid()) if each.title.startswith(titles)]


def _read(entry: Path) -> Process | None:
    """None where it has ended meanwhile, or is only waiting for its parent to take note of its end."""
    try:
        title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        # Its name stands in brackets and may hold any character, more brackets among them.
        state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state == "Z" else Process(int(entry.name), title, int(parent))
