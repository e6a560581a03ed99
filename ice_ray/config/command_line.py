"""From words on a command line to a run's description, with faults in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from ice_ray.config.overview import filled, overview
from ice_ray.config.preset import for_pipeline, load_preset
from ice_ray.config.replay_job import ReplayJobConfig, replay_defaults, replay_pipeline
from ice_ray.config.run import RunConfig, flat_options
from ice_ray.errors import UserError
from ice_ray.pipelines.registry import is_ignored

Config = TypeVar("Config")


def parse(kind: type[Config], arguments: Sequence[str], program: str) -> Config:
    """Read `arguments` into a config. `--help` prints the options and ends the program; of a run's there are many:
    a line each, and with `--help-all` in full.

    A `--preset` among them gives other defaults, wherever it stands, and so does the search that a replay names.

    Raises:
        UserError: an unknown preset, unknown options or values of the wrong kind, in one line.
    """
    _refuse_empty(arguments)
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
    except SystemExit as end:
        if end.code in (0, None):
            print(filled(shown.getvalue()), end="")
            raise
        raise UserError(f"{_one_line(said.getvalue(), has_overview)}; see {program} --help") from end
    if isinstance(config, RunConfig):
        _refuse_ignored(config.pipeline, arguments)
    if isinstance(config, ReplayJobConfig):
        _refuse_ignored(replay_pipeline(config.config), arguments)
    return config


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raises UserError: there is a value with nothing in it, of which no option has any use."""
    option = "an argument"
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            option = name
        if not (value if equals and name.startswith("--") else argument).strip():
            raise UserError(f"{option} is empty: give a value, or leave it out")


def _refuse_ignored(pipeline: str, arguments: Sequence[str]) -> None:
    """Raises UserError: there is an option, at its default or not, that the pipeline would not read."""
    for argument in arguments:
        if argument.startswith("--"):
            given = argument.partition("=")[0]
            group, dot, own = given.removeprefix("--").replace("_", "-").rpartition(".")
            if why := is_ignored(pipeline, f"{group}{dot}{own.removeprefix('no-')}"):
                raise UserError(f"{given} {why}")


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


def _one_line(box: str, of_a_run: bool) -> str:
    """What tyro's message says, without its frame and its rules, in our words where its own are of Python."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in text.splitlines()]
    words = re.sub(r"\s*-{4,}\s*", " ", " ".join(line for line in lines if line))
    words = re.sub(r"\s*(Argument helptext:|Perhaps you meant:|Arguments similar to|For full helptext).*$", "", words)
    words = re.sub(r" +", " ", words).strip()
    kinds = "Value error|Invalid choice|Parsing error|Missing argument|Required options?"
    words = re.sub(rf"^({kinds})\s*", "", words)
    if unknown := re.match(r"(?:Unrecognized options?:? )+(.+)$", words):
        return _about_unknown(unknown[1], of_a_run)
    return re.sub(r"^Error parsing (\S+): (.+)$", lambda found: _about_value(found[1], found[2]), words)


def _about_unknown(given: str, of_a_run: bool) -> str:
    words = given.split(", ")
    options = [f"--{option}" for option in flat_options(RunConfig().as_dict())] if of_a_run else []
    similar = [near for word in words for near in difflib.get_close_matches(word, options, n=1, cutoff=0.7)]
    meant = f"; similar: {', '.join(dict.fromkeys(similar))}" if similar else ""
    if not any(word.startswith("-") for word in words):
        return f"nothing takes the argument{'s' * (len(words) > 1)} {given}: one too many, or an option's -- is missing"
    return f"unknown option{'s' * (len(words) > 1)}: {given}{meant}"


def _about_value(option: str, said: str) -> str:
    given = re.search(r"from \[(.*?)\]\. Got|arguments \[(.*?)\] into|: ('.*')$", said)
    kind = next((words for pattern, words in _KINDS.items() if re.search(pattern, said)), "")
    if given is None or not kind:
        return f"{option}: {said}"
    return f"{option} takes {kind}, not {next(found for found in given.groups() if found)}"


_KINDS = {
    r"Tuple\[float|FLOAT \w*FLOAT": "numbers",
    r"\bINT\b|for int\(\)": "a whole number",
    r"\bFLOAT\b|to float": "a number",
}
