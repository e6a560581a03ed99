"""Presets, and the recipes of pipelines: defaults for the options, a YAML file each, named as options are."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from ice_ray.config.run import RunConfig, config_from_dict
from ice_ray.errors import UserError, nearest
from ice_ray.files import parse_yaml
from ice_ray.pipelines.registry import PIPELINES
from ice_ray.search.space import named_spaces


def named_presets() -> list[str]:
    """Those that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> RunConfig:
    """The description of a run in which nothing but the preset was asked for.

    Raises:
        UserError: unknown name.
    """
    if name not in named_presets():
        raise UserError(f"unknown preset '{name}' ({nearest(name, named_presets())})")
    return parse_preset(name, (_folder() / f"{name}.yaml").read_text())


def for_pipeline(config: RunConfig, pipeline: str) -> RunConfig:
    """The description with what goes with a pipeline by name: its recipe, where it has one (`ice-plus`); and without
    the grid, and the number of its points, that a preset names for another. A grid of the same name is the pipeline's
    own, of as many points as it has.
    """
    if pipeline in PIPELINES and pipeline != config.pipeline and config.space is not None:
        space = config.space if config.space in named_spaces(pipeline) else None
        config = replace(config, space=space, search=replace(config.search, trials=None))
    recipe = resources.files("ice_ray.config") / "recipes" / f"{pipeline}.yaml"
    if not recipe.is_file():
        return config
    origin = f"recipe '{pipeline}'"
    values = _over(config.as_dict(), parse_yaml(recipe.read_text(), origin), origin)
    return config_from_dict(values | {"pipeline": pipeline}, origin)


def parse_preset(name: str, text: str) -> RunConfig:
    """A run's description from a preset's YAML.

    Raises:
        UserError: a key that is no option, or a value that its option does not take.
    """
    origin = f"preset '{name}'"
    values = _over(RunConfig().as_dict(), parse_yaml(text, origin), origin)
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
