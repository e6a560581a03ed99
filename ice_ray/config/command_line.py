"""From words on a command line to a run's description, with faults in one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from ice_ray.errors import UserError

Config = TypeVar("Config")


def parse(kind: type[Config], arguments: Sequence[str], program: str) -> Config:
    """Read `arguments` into a config. `--help` prints the options and ends the program.

    Raises:
        UserError: unknown options or values of the wrong kind, in one line.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(arguments), prog=program)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise UserError(_one_line(said.getvalue(), program)) from end


def _one_line(box: str, program: str) -> str:
    """tyro's framed message without its frame."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in text.splitlines()]
    words = " ".join(line for line in lines if line)
    words = re.sub(r"\s*(Argument helptext:|Perhaps you meant:|For full helptext).*$", "", words)
    words = re.sub(
        r"^(Value error|Invalid choice|Parsing error|Unrecognized options?:?|Required options?)\s*", "", words
    )
    return f"{re.sub(' +', ' ', words)}; see {program} --help"
