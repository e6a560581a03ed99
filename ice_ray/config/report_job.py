"""The options of the job that writes reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ice_ray.errors import UserError


@dataclass(frozen=True)
class ReportConfig:
    """Write report.html of a run anew, from its files; of several runs a comparison too."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders or addresses of runs (or of replays below them) whose search has ended."""
    target: str | None = None
    """The comparison's file. [default: comparison.html beside the first run]"""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("give the folder of at least one run")
        if self.target is not None and len(self.runs) < 2:
            raise UserError("--target is the comparison's file: give more than one run")
