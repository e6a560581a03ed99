"""What settings say of their fields, said of the options that set them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ice_ray.config.inspect_job import InspectConfig
from ice_ray.config.run import RunConfig
from ice_ray.errors import FieldError, UserError
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.registry import PIPELINES


def in_options(error: UserError) -> str:
    """The error's line; where it is of a field, of that field's option.

    >>> from ice_ray.search.config import SearchConfig
    >>> in_options(FieldError(SearchConfig, "eval_images", "0 must be at least 1"))
    '--search.eval-images 0 must be at least 1'
    """
    if not isinstance(error, FieldError):
        return str(error)
    prefix = _PREFIXES.get(error.owner, "" if issubclass(error.owner, PipelineConfig) else None)
    if prefix is None:
        return str(error)
    return f"--{prefix}{error.field.replace('_', '-')} {error.said}"


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
