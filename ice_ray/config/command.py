"""From a job's description back to the command line that gives it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ice_ray.config.command_line import defaults
from ice_ray.config.jobs import ReplayJobConfig
from ice_ray.config.option_words import yes_or_no
from ice_ray.config.run import RunConfig, flat_options, plain_values
from ice_ray.invocation import job_words

# What the defaults of the others follow from.
_FIRST = {"preset": None, "pipeline": "ice", "target": None, "config": None}
_NOT_SAID = ("resume",)


def command_of(job: str, config: RunConfig[Any] | ReplayJobConfig[Any]) -> str:
    """The command that begins this job anew, as one line for the user's shell (`ice_ray.invocation.job_words`): the
    options that are not at their defaults.

    Args:
        job: `prune`, `search` or `replay`.

    >>> command_of("prune", RunConfig(batch_size=64, name="a b")).partition("prune ")[2]
    "--batch-size 64 --name 'a b'"
    """
    flat = flat_options(plain_values(config))
    first = [name for name, usual in _FIRST.items() if flat.get(name, usual) != usual]
    default = flat_options(plain_values(defaults(type(config), _words(flat, first))))
    skipped = (*first, *_NOT_SAID, "target", *(("ratio",) if flat.get("target") else ()))
    rest = [name for name in flat if name not in skipped and flat[name] != default[name]]
    if default.get("target") and not flat["target"] and "ratio" not in rest:  # a replay's, in place of its search's
        rest.append("ratio")
    for name, value in flat_options(plain_values(type(config.options)())).items():
        if value is None and isinstance(flat[name], bool):  # no switch: it has three states
            flat[name] = yes_or_no(flat[name])
    return shlex.join([*job_words(job), *_words(flat, [*first, *rest])])


def _words(flat: dict[str, Any], names: Sequence[str]) -> list[str]:
    return [word for name in names for word in _option(name, flat[name])]


def _option(name: str, value: Any) -> list[str]:
    group, dot, own = name.rpartition(".")
    if isinstance(value, bool) and not value:
        own = f"no-{own}"
    values = [] if isinstance(value, bool) else list(value) if isinstance(value, list) else [value]
    return [f"--{group}{dot}{own}", *map(str, values)]
