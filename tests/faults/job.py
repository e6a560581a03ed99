"""A job by its command line, watched by what it prints and by what it leaves in the run's folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ice_ray.trials.run import STATES

ROOT = Path(__file__).parent.parent.parent
PATIENCE_SECONDS = 600.0
"""Without a step forward. A deadline for what hangs: nothing is judged by how fast it went."""
Stage = Literal["search", "replay"]


class TooLateError(Exception):
    """The job had come to its end, and a good one, before a fault could be inflicted."""


class Job:
    """One of the two stages in a process of its own, on a cluster.

    Args:
        address: of the cluster.
        folder: the run's.
        options: of the search.
        log: takes what it prints; not on a disk that is filled.
    """

    def __init__(self, stage: Stage, address: str, folder: Path, options: list[str], log: Path) -> None:
        self.stage, self.folder = stage, folder
        self._address, self._options, self._log = address, options, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._look, self._at, self._pace = time.monotonic(), 0, 1.0

    def start(self, resume: bool = False) -> None:
        """Begin, or go on with what is in the folder."""
        if self.stage == "search":
            place = ["--storage", str(self.folder.parent), "--name", self.folder.name]
            words = [str(ROOT / "jobs" / "ice_search.py"), *self._options, *place]
        else:
            words = [str(ROOT / "jobs" / "ice_replay.py"), "--config", str(self.folder / "best.json")]
        # Everything of this environment, and of this checkout.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {
            "RAY_ADDRESS": self._address,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": path,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *words, *["--resume"] * resume],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | own,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """By all its parts."""
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether its process has."""
        return self._process is not None and self._process.poll() is not None

    @property
    def progress(self) -> int:
        """Action records of a search, steps of a replay (1 is none yet: its workers have begun)."""
        if self.stage == "search":
            records = self.folder / STATES / "actions.jsonl"
            return records.read_bytes().count(b"\n") if records.is_file() else 0
        printed = self.printed
        steps = [int(step) for step in re.findall(r"^ +step (\d+)/", printed, re.MULTILINE)]
        return 1 + max(steps, default=0) if "\n  dense:" in printed else 0

    def wait_for(self, what: str, reached: Callable[[], bool]) -> bool:
        """Wait until it is so; returns whether it is, rather than that the job has ended. Fails where for long nothing
        has gone forward.
        """
        moved, seen = time.monotonic(), (self.progress, len(self.printed))
        while not reached():
            if self.ended:
                return reached()
            self._measure()
            if (now := (self.progress, len(self.printed))) != seen:
                moved, seen = time.monotonic(), now
            assert time.monotonic() < moved + PATIENCE_SECONDS, f"waited in vain for {what}:\n{self.printed[-4000:]}"
            time.sleep(0.05)
        return True

    def expect(self, what: str, reached: Callable[[], bool]) -> None:
        """As `wait_for`, of what must come before the job ends.

        Raises:
            TooLateError: the job ended well without it.
        """
        if not self.wait_for(what, reached):
            assert self.finish() == 0, f"ended while waiting for {what}:\n{self.printed[-4000:]}"
            raise TooLateError(what)

    def has_come_to(self, count: int) -> bool:
        """Whether it has come so far."""
        return self.progress >= count

    def pause_within(self, share: float) -> None:
        """Wait for a share of the time that it takes for a step forward, as fast as this machine is just now."""
        time.sleep(share * self._pace)

    def finish(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process is not None
        self.wait_for("its end", lambda: self.ended)
        return self._process.wait()

    def kill(self) -> None:
        """The driver, at once, and nothing else: Ray's processes are to notice."""
        assert self._process is not None
        if not self.ended:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _measure(self) -> None:
        now, progress = time.monotonic(), self.progress
        if progress > self._at:
            self._pace = min(10.0, (now - self._look) / (progress - self._at))
            self._look, self._at = now, progress
