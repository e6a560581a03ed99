"""From words on a command line to a run's description, with faults in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ice_ray.config.jobs import ReplayJobConfig, replay_defaults, searched_pipeline
from ice_ray.config.option_words import in_options, yes_or_no
from ice_ray.config.overview import filled, overview
from ice_ray.config.preset import load_preset
from ice_ray.config.run import RunConfig, default_run, flat_options, plain_values
from ice_ray.errors import OwnCodeError, UserError
from ice_ray.extensions import is_own, origin_of
from ice_ray.guard import blaming
from ice_ray.observe.terminal import say
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.registry import PIPELINES

Config = TypeVar("Config")


def parse(kind: type[Config], arguments: Sequence[str], program: str) -> Config:
    """Read `arguments` into a config. `--help` prints the options and ends the program; of a run's there are many:
    a line each, and with `--help-all` in full.

    A `--preset` among them gives other defaults, wherever it stands, and so does the search that a replay names; a
    `--pipeline` has options of its own.

    Raises:
        UserError: an unknown preset, unknown options or values of the wrong kind, in one line.
    """
    _refuse_empty(arguments)
    own = _named_own_pipeline(kind, arguments)  # before anything that would import it, a message in options too
    try:
        return _parsed(kind, arguments, program, own)
    except OwnCodeError:
        raise
    except UserError as error:
        configs = []
        with contextlib.suppress(UserError):  # they may be what is wrong
            configs = [each for each in (defaults(kind, arguments),) if dataclasses.is_dataclass(each)]
        raise UserError(in_options(error, *configs)) from error


def _parsed(kind: type[Config], arguments: Sequence[str], program: str, own: Mapping[str, str]) -> Config:
    if _given("--ratio", arguments) is not None and _given("--target", arguments) is not None:
        raise UserError("--ratio and --target both say how much to prune: give one of them")
    said, shown = io.StringIO(), io.StringIO()
    default = defaults(kind, arguments)
    if issubclass(kind, (RunConfig, ReplayJobConfig)):
        kind = kind[type(getattr(default, "options", IceConfig()))]  # type: ignore[index]
    _refuse_lists_of_nothing(arguments, default)
    has_overview = isinstance(default, RunConfig)
    if has_overview and {"-h", "--help"} & set(arguments):
        print(overview(program, default))
        raise SystemExit(0)
    words = ["--help" if argument == "--help-all" else argument for argument in arguments]
    kept = contextlib.redirect_stdout(shown) if has_overview else contextlib.nullcontext()
    try:
        with contextlib.redirect_stderr(said), kept, blaming(own):
            config: Config = tyro.cli(kind, args=words, prog=program, default=default, registry=_KNOWN_TYPES)
    except SystemExit as end:
        if end.code in (0, None):
            print(filled(shown.getvalue()), end="")
            raise
        raise UserError(f"{_one_line(said.getvalue(), default)}; see {program} --help") from end
    return config


_KNOWN_TYPES = ConstructorRegistry()


@_KNOWN_TYPES.primitive_rule
def _yes_or_no(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool | None] | None:
    """What is on, off, or neither, in which case the job decides: yes or no, where tyro would take True or False."""
    if info.type != bool | None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{yes,no}",
        instance_from_str=lambda words: words[0] == "yes",
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [yes_or_no(value)],
        choices=("yes", "no"),
    )


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raises UserError: there is a value with nothing in it, of which no option has any use."""
    option = "an argument"
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            option = name
        if not (value if equals and name.startswith("--") else argument).strip():
            raise UserError(f"{option} is empty: give a value, or leave it out")


def _refuse_lists_of_nothing(arguments: Sequence[str], default: Any) -> None:
    """Raises UserError: nothing follows an option that takes one value or more."""
    if not hasattr(default, "options"):
        return
    lists = {f"--{option}" for option, value in flat_options(plain_values(default)).items() if isinstance(value, list)}
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        if argument.replace("_", "-") in lists and following.startswith("--"):
            raise UserError(f"{argument} needs a value")


def _named_own_pipeline(kind: type[Any], arguments: Sequence[str]) -> dict[str, str]:
    """Said before the user's own pipeline is imported: its options are needed to read the others. As
    `ice_ray.guard.blaming` takes it.
    """
    name = _given("--pipeline", arguments)
    if kind is ReplayJobConfig and (path := _given("--config", arguments)) is not None:
        name = searched_pipeline(path)
    if name is None or not is_own(name):
        return {}
    say(f"--pipeline {name}: your own code, from {origin_of(name, 'pipeline')}")
    return {"pipeline": name}


def defaults(kind: type[Any], arguments: Sequence[str]) -> Any:
    """What the options default to: what the last `--preset` and the pipeline say, or for a replay what its search was
    told.
    """
    if kind is RunConfig:
        preset, pipeline = _given("--preset", arguments), _given("--pipeline", arguments)
        return default_run(pipeline or "ice") if preset is None else load_preset(preset, pipeline)
    if kind is ReplayJobConfig and (path := _given("--config", arguments)) is not None:
        searched = replay_defaults(path)
        return searched if _given("--ratio", arguments) is None else dataclasses.replace(searched, target=None)
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


def _one_line(box: str, default: Any) -> str:
    """What tyro's message says, without its frame and its rules, in our words where its own are of Python."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in text.splitlines()]
    words = re.sub(r"\s*-{4,}\s*", " ", " ".join(line for line in lines if line))
    words = re.sub(r"\s*(Argument helptext:|Perhaps you meant:|Arguments similar to|For full helptext).*$", "", words)
    words = re.sub(r" +", " ", words).strip()
    kinds = "Value error|Invalid choice|Parsing error|Missing argument|Required options?"
    words = re.sub(rf"^({kinds})\s*", "", words)
    if unknown := re.match(r"(?:Unrecognized options?:? )+(.+)$", words):
        return _about_unknown(unknown[1], default)
    return re.sub(r"^Error parsing (\S+): (.+)$", lambda found: _about_value(found[1], found[2]), words)


# Options of earlier versions, by what they are called now.
RENAMED = {
    "--compensate": "--repair",
    "--distil": "--fine-tune.distil",
    "--recovery.schedule": "--fine-tune.schedule",
    "--recovery.distil": "--fine-tune.distil",
    "--recovery.temperature": "--fine-tune.temperature",
    "--recovery.distil-weight": "--fine-tune.distil-weight",
    "--recovery.label-smoothing": "--fine-tune.label-smoothing",
    "--recovery.check-every": "--early-stopping.every",
    "--recovery.check-images": "--early-stopping.images",
    "--recovery.check-margin": "--early-stopping.margin",
    "--search.epochs": "--fine-tune.epochs",
    "--replay.epochs": "--fine-tune.replay-epochs",
    "--replay.final-epochs": "--final.epochs",
    "--replay.final-subsample": "--final.subsample",
    "--replay.final-rate-factor": "--final.rate-factor",
    "--replay.final-rate": "--final.rate",
    "--replay.final-schedule": "--final.schedule",
    "--prune.calibration-images": "--calibration-images",
    "--prune.reconstruction-epochs": "--reconstruction-epochs",
    "--search.lr-tolerance": "--lr-tolerance",
}


def _about_unknown(given: str, default: Any) -> str:
    words = given.split(", ")
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        positive = re.sub(r"(--|\.)no-", r"\1", name)
        if (renamed := RENAMED.get(positive)) is not None:
            switch = renamed if positive == name else re.sub(r"(--|\.)([\w-]+)$", r"\1no-\2", renamed)
            return f"{name} is now {switch}"
    options: list[str] = []
    if hasattr(default, "options"):
        options = [f"--{option}" for option in flat_options(plain_values(default))]
        for word in words:
            if owners := [name for name, kind in PIPELINES.items() if _is_option(word, kind.Config())]:
                own = next((name for name, kind in PIPELINES.items() if kind.Config is type(default.options)), "yours")
                return f"{word.partition('=')[0]} is an option of --pipeline {' and '.join(owners)}, not of {own}"
    similar = [near for word in words for near in difflib.get_close_matches(word, options, n=1, cutoff=0.7)]
    meant = f"; similar: {', '.join(dict.fromkeys(similar))}" if similar else ""
    if not any(word.startswith("-") for word in words):
        return f"nothing takes the argument{'s' * (len(words) > 1)} {given}: one too many, or an option's -- is missing"
    return f"unknown option{'s' * (len(words) > 1)}: {given}{meant}"


def _is_option(word: str, config: PipelineConfig) -> bool:
    group, dot, own = word.partition("=")[0].removeprefix("--").replace("_", "-").rpartition(".")
    return f"{group}{dot}{own.removeprefix('no-')}" in flat_options(plain_values(config))


def _about_value(option: str, said: str) -> str:
    given = re.search(r"from \[(.*?)\]\. Got|arguments:? \[(.*?)\]|: ('.*')$", said)
    kind = next((words for pattern, words in _KINDS.items() if re.search(pattern, said)), "")
    if given is None or not kind:
        return f"{option}: {said}"
    return f"{option} takes {kind}, not {next(found for found in given.groups() if found)}"


_KINDS = {
    r"find valid parse": "numbers",  # of any number of them, which only --mean and --std take
    r"\bINT\b|for int\(\)": "a whole number",
    r"\bFLOAT\b|to float": "a number",
}
