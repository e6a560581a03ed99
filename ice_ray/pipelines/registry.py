"""The pipelines by name, a file each."""

from __future__ import annotations

import dataclasses
from typing import Any

from ice_ray.errors import OwnCodeError, UserError, nearest
from ice_ray.extensions import is_own, load_own, meant_as_own
from ice_ray.guard import guarded
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.aap import AapPipeline
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.baseline import BaselinePipeline
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.imp import BimpPipeline, ImpPipeline
from ice_ray.pipelines.one_shot import OneShotPipeline
from ice_ray.pipelines.own import OwnPipeline

PIPELINES: dict[str, type[Pipeline]] = {
    "ice": IcePipeline,
    "baseline": BaselinePipeline,
    "one-shot": OneShotPipeline,
    "aap": AapPipeline,
    "imp": ImpPipeline,
    "bimp": BimpPipeline,
}
_RENAMED = {"ice-plus": "ice, the default"}  # of earlier versions
_FORM = "a pipeline is a class of ice_ray.pipelines.base.Pipeline with a Config and Hyperparameters"


def pipeline_named(name: str) -> type[Pipeline]:
    """The pipeline of that name, or the user's own `package.module:Class`.

    Raises:
        UserError: there is none, or what there is is no pipeline.
    """
    if is_own(name):
        return _own(name)
    if name in _RENAMED:
        raise UserError(f"pipeline '{name}' is now {_RENAMED[name]}")
    if name not in PIPELINES:
        raise UserError(
            f"unknown pipeline '{name}' ({nearest(name, list(PIPELINES))}; or package.module:Class{meant_as_own(name)})"
        )
    return PIPELINES[name]


def related(name: str) -> str:
    """The registered pipeline that one of the user's own has its hyperparameters from, and so its spaces; its own name
    where it has them from none.
    """
    kind = pipeline_named(name).Hyperparameters
    known = (each for each, own in PIPELINES.items() if own.Hyperparameters is kind)
    return name if name in PIPELINES else next(known, name)


def build_pipeline(name: str, config: PipelineConfig, hyperparameters: Hyperparameters) -> Pipeline:
    """The pipeline of that name with its options, for one set of hyperparameters.

    Raises:
        UserError: there is none of that name, or it does not go with them.
    """
    kind = pipeline_named(name)
    for given, wanted, what in ((config, kind.Config, "Config"), (hyperparameters, kind.Hyperparameters, "")):
        if not isinstance(given, wanted):
            whose = f"its {what}" if what else wanted.__name__
            raise UserError(f"pipeline {name} takes {whose}, not {type(given).__name__}")
    if not is_own(name):
        return kind(config=config, hyperparameters=hyperparameters)
    with guarded(name, "pipeline"):
        own = kind(config=config, hyperparameters=hyperparameters)
    return OwnPipeline(config=config, hyperparameters=hyperparameters, name=name, own=own)


def _own(name: str) -> type[Pipeline]:
    found: Any = load_own(name, "pipeline")
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        what = "class" if isinstance(found, type) else type(found).__name__
        raise OwnCodeError(f"pipeline '{name}' is a {what}, not an ice_ray Pipeline; {_FORM}")
    for what, base in (("Config", PipelineConfig), ("Hyperparameters", Hyperparameters)):
        own: Any = getattr(found, what)
        if not (isinstance(own, type) and issubclass(own, base) and dataclasses.is_dataclass(own)):
            raise OwnCodeError(f"pipeline '{name}': its {what} is no dataclass of {base.__name__}")
    with guarded(name, "pipeline"):
        found.Config()  # every option has a default
    return found
