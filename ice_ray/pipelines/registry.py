"""The pipelines by name, a file each."""

from __future__ import annotations

from collections.abc import Callable

from ice_ray.errors import UserError, nearest
from ice_ray.extensions import is_own, load_own
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.settings import PruningSettings

Build = Callable[[PruningSettings, Hyperparameters], Pipeline]


def _ice(settings: PruningSettings, hyperparameters: Hyperparameters) -> Pipeline:
    return IcePipeline(
        settings.removal,
        hyperparameters,
        settings.counting,
        settings.learning_rate_tolerance,
        settings.recovery,
        settings.decision_error,
        settings.freeze.stem,
        settings.compensation,
    )


PIPELINES: dict[str, Build] = {"ice": _ice}


def check_pipeline(name: str) -> Build:
    """What builds the pipeline of that name, or the user's own `package.module:function` of the same two arguments.

    Raises:
        UserError: there is none.
    """
    if is_own(name):
        return load_own(name, "pipeline")
    if name not in PIPELINES:
        raise UserError(f"unknown pipeline '{name}' ({nearest(name, list(PIPELINES))}; or package.module:function)")
    return PIPELINES[name]


def build_pipeline(settings: PruningSettings, hyperparameters: Hyperparameters) -> Pipeline:
    """The pipeline that the settings name.

    Raises:
        UserError: there is none of that name, or the user's own gives something else.
    """
    pipeline = check_pipeline(settings.pipeline)(settings, hyperparameters)
    if not isinstance(pipeline, Pipeline):
        raise UserError(f"pipeline '{settings.pipeline}' gives {type(pipeline).__name__}, not an ice_ray Pipeline")
    return pipeline
