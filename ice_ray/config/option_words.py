"""What settings say of their fields, said of the options that set them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from ice_ray.config.jobs import InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.errors import FieldError
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.registry import PIPELINES


def in_options(error: BaseException, *configs: Any) -> str:
    """The error's words, with the options in the place of the fields that they name.

    Args:
        configs: with settings that no pipeline of the registry has.

    >>> from ice_ray.errors import UserError
    >>> from ice_ray.trials.config import SearchConfig
    >>> in_options(FieldError(SearchConfig, "eval_images", "0 must be at least 1"))
    '--search.eval-images 0 must be at least 1'
    >>> in_options(UserError("out of reach; prune.coupled=True takes more"))
    'out of reach; --prune.coupled yes takes more'
    >>> in_options(UserError("layer1: left out by prune.include; see layer1.0.conv1"))
    'layer1: left out by --prune.include; see layer1.0.conv1'
    """
    if isinstance(error, FieldError):
        own = dict(group for config in configs for group in _groups(config))
        prefix = (_PREFIXES | own).get(error.owner, "" if issubclass(error.owner, PipelineConfig) else None)
        if prefix is not None:
            return f"--{prefix}{error.field.replace('_', '-')} {error.said}"
    return _GROUPED.sub(_option, str(error))


def _option(found: re.Match[str]) -> str:
    value = "" if found["value"] is None else f" {yes_or_no(found['value'] == 'True')}"
    return f"--{found['field'].replace('_', '-')}{value}"


def yes_or_no(value: bool | None) -> str:
    """How an option is written that is on, off or neither.

    >>> yes_or_no(True), yes_or_no(False), yes_or_no(None)
    ('yes', 'no', 'None')
    """
    return "None" if value is None else "yes" if value else "no"


def in_arguments(text: str) -> str:
    """Words about options, as they are of the arguments of Python's functions.

    >>> in_arguments("--search.max-drop is for another; go on with it (--resume), or --no-threshold")
    'search.max_drop is for another; go on with it (resume=True), or threshold=False'
    """
    return _OPTION.sub(lambda found: _argument(found["no"], found["name"]), text)


_OPTION = re.compile(r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][a-z_-]*(\.[a-z][a-z_-]*)*)")
_FLAGS = ("resume", "verbose")


def _argument(negated: str | None, name: str) -> str:
    argument = name.replace("-", "_")
    return f"{argument}=False" if negated else f"{argument}=True" if name in _FLAGS else argument


def _groups(config: Any, prefix: str = "") -> Iterator[tuple[type, str]]:
    yield type(config), prefix
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            yield from _groups(value, prefix if each.name == "options" else f"{prefix}{each.name.replace('_', '-')}.")


_PREFIXES = dict(
    group
    for config in (RunConfig(), InspectConfig(""), *(each.Config() for each in PIPELINES.values()))
    for group in _groups(config)
)
# A field within a group is written as group.field wherever it is named.
_GROUPED = re.compile(
    r"(?<![\w./-])(?P<field>"
    + "|".join(
        re.escape(f"{prefix.replace('-', '_')}{each.name}")
        for kind, prefix in _PREFIXES.items()
        for each in dataclasses.fields(kind)
        if prefix
    )
    + r")(?:=(?P<value>True|False))?(?![\w.])"
)
