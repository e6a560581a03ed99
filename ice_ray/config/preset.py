"""Presets: defaults for the options, a YAML file each, named as options are."""

from __future__ import annotations

import reprlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from ice_ray.config.run import RunConfig, config_from_dict, default_run
from ice_ray.errors import UserError, nearest
from ice_ray.files import parse_yaml
from ice_ray.trials.space import named_spaces


def named_presets() -> list[str]:
    """Those that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str, pipeline: str | None = None) -> RunConfig[Any]:
    """The description of a run in which nothing but the preset, and a pipeline, was asked for.

    Raises:
        UserError: unknown name.
    """
    if name not in named_presets():
        raise UserError(f"unknown preset '{name}' ({nearest(name, named_presets())})")
    return parse_preset(name, (_folder() / f"{name}.yaml").read_text(), pipeline)


def parse_preset(name: str, text: str, pipeline: str | None = None) -> RunConfig[Any]:
    """A run's description from a preset's YAML.

    Args:
        pipeline: in the place of the preset's own: what it says of options that this one has not is passed over, and
            so are a grid that is not this one's, and the number of its points.

    Raises:
        UserError: a key that is no option, or a value that its option does not take.
    """
    origin = f"preset '{name}'"
    given = parse_yaml(text, origin)
    if not isinstance(given, dict):
        raise UserError(f"{origin} must map options to values, not be {reprlib.repr(given)}")
    own = str(given.get("pipeline", "ice"))
    values = _over(default_run(own).as_dict(), given, origin)
    if pipeline not in (None, own):
        known = default_run(pipeline).as_dict()
        values = _over(known, _of(known, given), origin) | {"pipeline": pipeline}
        if values["space"] not in named_spaces(pipeline):
            values["space"] = None
        values["search"]["trials"] = None
    return config_from_dict(values | {"preset": name}, origin)


def _folder() -> Traversable:
    return resources.files("ice_ray.config") / "presets"


def _over(defaults: dict[str, Any], given: Any, origin: str) -> dict[str, Any]:
    """The defaults with what was given in their place."""
    if not isinstance(given, dict):
        raise UserError(f"{origin} must map options to values, not be {reprlib.repr(given)}")
    values = dict(defaults)
    for option, value in given.items():
        key = str(option).replace("-", "_")
        if key not in defaults:
            raise UserError(f"{origin}: no option '{option}' ({nearest(key, list(defaults))})")
        nested = isinstance(defaults[key], dict)
        values[key] = _over(defaults[key], value, f"{origin}, {option}") if nested else value
    return values


def _of(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What was given of options that are known."""
    values = {}
    for option, value in given.items():
        key = str(option).replace("-", "_")
        if key in known:
            values[option] = _of(known[key], value) if isinstance(known[key], dict) else value
    return values
