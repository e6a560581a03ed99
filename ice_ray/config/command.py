"""From a job's description back to the command line that gives it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ice_ray.config.command_line import defaults
from ice_ray.config.replay_job import ReplayJobConfig
from ice_ray.config.run import RunConfig

# What the defaults of the others follow from.
_FIRST = ("config", "preset", "pipeline", "target")
_NOT_SAID = ("resume",)


def command_of(program: str, config: RunConfig | ReplayJobConfig) -> str:
    """The command that begins this job anew, as one line for a shell: the options that are not at their defaults.

    >>> command_of("ice_prune.py", RunConfig(ratio=0.6, name="a b"))
    "python jobs/ice_prune.py --ratio 0.6 --name 'a b'"
    """
    flat = _flat(config)
    own = {field.name: field.default for field in dataclasses.fields(config)}
    first = [name for name in _FIRST if name in flat and flat[name] != own[name]]
    usual = _flat(defaults(type(config), _words(flat, first)))
    rest = [name for name in flat if name not in (*first, *_NOT_SAID) and flat[name] != usual[name]]
    return shlex.join(["python", f"jobs/{program}", *_words(flat, [*first, *rest])])


def _words(flat: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [word for name in names for word in _option(name, flat[name])]


def _option(name: str, value: Any) -> list[str]:
    group, dot, own = name.rpartition(".")
    if isinstance(value, bool) and not value:
        own = f"no-{own}"
    values = [] if isinstance(value, bool) else list(value) if isinstance(value, tuple) else [value]
    return [f"--{group}{dot}{own}".replace("_", "-"), *map(str, values)]


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = str(value) if isinstance(value, Path) else value
    return flat
