"""From words on a command line to a run's description, with faults in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from ice_ray.config.overview import filled, overview
from ice_ray.config.preset import for_pipeline, load_preset
from ice_ray.config.replay_job import ReplayJobConfig, replay_defaults
from ice_ray.config.run import RunConfig
from ice_ray.errors import UserError

Config = TypeVar("Config")


def parse(kind: type[Config], arguments: Sequence[str], program: str) -> Config:
    """Read `arguments` into a config. `--help` prints the options and ends the program; of a run's there are many:
    a line each, and with `--help-all` in full.

    A `--preset` among them gives other defaults, wherever it stands, and so does the search that a replay names.

    Raises:
        UserError: an unknown preset, unknown options or values of the wrong kind, in one line.
    """
    said, shown = io.StringIO(), io.StringIO()
    default = defaults(kind, arguments)
    has_overview = isinstance(default, RunConfig)
    if has_overview and {"-h", "--help"} & set(arguments):
        print(overview(program, default))
        raise SystemExit(0)
    words = ["--help" if argument == "--help-all" else argument for argument in arguments]
    kept = contextlib.redirect_stdout(shown) if has_overview else contextlib.nullcontext()
    try:
        with contextlib.redirect_stderr(said), kept:
            config: Config = tyro.cli(kind, args=words, prog=program, default=default)
            return config
    except SystemExit as end:
        if end.code in (0, None):
            print(filled(shown.getvalue()), end="")
            raise
        raise UserError(_one_line(said.getvalue(), program)) from end


def defaults(kind: type[Any], arguments: Sequence[str]) -> Any:
    """What the options default to: what the last `--preset` and the pipeline's recipe say, or for a replay what its
    search was told.
    """
    if kind is RunConfig:
        name = _given("--preset", arguments)
        config = RunConfig() if name is None else load_preset(name)
        if _given("--target", arguments) is not None:
            config = dataclasses.replace(config, ratio=None)  # it takes the place of the preset's ratio
        return for_pipeline(config, _given("--pipeline", arguments) or config.pipeline)
    if kind is ReplayJobConfig and (path := _given("--config", arguments)) is not None:
        return replay_defaults(path)
    return tyro.MISSING_NONPROP


def _given(option: str, arguments: Sequence[str]) -> str | None:
    """The last value that an option was given."""
    value = None
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        if argument == option:
            value = following
        elif argument.startswith(f"{option}="):
            value = argument.removeprefix(f"{option}=")
    return value


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
