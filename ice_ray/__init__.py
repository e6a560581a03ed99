"""ice_ray: ICE-Pruning as a Ray Tune search and a Ray Train replay.

In a notebook or a program, `prune` runs the operator in the process itself, without Ray; `inspect` shows what can be
pruned, `load_weights` reads trained weights, `load_pruned` gives back what was saved, `export` writes it for other
runtimes. The jobs are in `jobs/`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import ice_ray.ray_environment  # noqa: F401 - before anything imports Ray
from ice_ray.freed_memory import keep_freed_memory
from ice_ray.processor import avoid_unusable_tiles

if TYPE_CHECKING:
    from ice_ray.api.data import given_data
    from ice_ray.api.inspect import inspect
    from ice_ray.api.prune import prune
    from ice_ray.api.result import Result
    from ice_ray.api.run import Study, load_run
    from ice_ray.api.search import search
    from ice_ray.api.weights import load_weights
    from ice_ray.artifact import load_pruned
    from ice_ray.data.images import ImageSet, Preprocessing, PruningData
    from ice_ray.errors import DataError, DivergedError, OutOfMemoryError, OwnCodeError, TrialFailure, UserError
    from ice_ray.exporter import export
    from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters
    from ice_ray.observe.anatomy import Inspection
    from ice_ray.pipelines.aap import AapConfig, AapHyperparameters, AapOptions
    from ice_ray.pipelines.base import FinalConfig
    from ice_ray.pipelines.baseline import BaselineConfig, BaselineHyperparameters
    from ice_ray.pipelines.ice import EarlyStoppingConfig, FreezeConfig, IceConfig
    from ice_ray.pipelines.imp import BimpHyperparameters, ImpConfig, ImpHyperparameters, ImpOptions
    from ice_ray.pipelines.layerwise import LayerwiseConfig
    from ice_ray.pipelines.one_shot import OneShotHyperparameters
    from ice_ray.pipelines.records import StepRecord
    from ice_ray.pruning.config import LayerwisePruneConfig, PruneConfig
    from ice_ray.training.config import FineTuneConfig, StepFineTuneConfig

__version__ = "0.1.0"

avoid_unusable_tiles()
keep_freed_memory()

__all__ = [
    "NEVER",
    "AapConfig",
    "AapHyperparameters",
    "AapOptions",
    "BaselineConfig",
    "BaselineHyperparameters",
    "BimpHyperparameters",
    "DataError",
    "DivergedError",
    "EarlyStoppingConfig",
    "FinalConfig",
    "FineTuneConfig",
    "FreezeConfig",
    "Hyperparameters",
    "IceConfig",
    "IceHyperparameters",
    "ImageSet",
    "ImpConfig",
    "ImpHyperparameters",
    "ImpOptions",
    "Inspection",
    "LayerwiseConfig",
    "LayerwisePruneConfig",
    "OneShotHyperparameters",
    "OutOfMemoryError",
    "OwnCodeError",
    "Preprocessing",
    "PruneConfig",
    "PruningData",
    "ReplayConfig",
    "Result",
    "RunError",
    "SearchConfig",
    "StepFineTuneConfig",
    "StepRecord",
    "Study",
    "TrialFailure",
    "UserError",
    "export",
    "given_data",
    "inspect",
    "load_pruned",
    "load_run",
    "load_weights",
    "prune",
    "search",
]

# Loaded when asked for: a process that only decodes images, or shows --help, needs no torch, which takes seconds.
_HOMES = {
    "ReplayConfig": "replay.config",
    "SearchConfig": "trials.config",
    "RunError": "errors",
    "AapConfig": "pipelines.aap",
    "AapHyperparameters": "pipelines.aap",
    "AapOptions": "pipelines.aap",
    "BaselineConfig": "pipelines.baseline",
    "BaselineHyperparameters": "pipelines.baseline",
    "BimpHyperparameters": "pipelines.imp",
    "DataError": "errors",
    "DivergedError": "errors",
    "EarlyStoppingConfig": "pipelines.ice",
    "FinalConfig": "pipelines.base",
    "FineTuneConfig": "training.config",
    "FreezeConfig": "pipelines.ice",
    "Hyperparameters": "hyperparameters",
    "IceConfig": "pipelines.ice",
    "IceHyperparameters": "hyperparameters",
    "ImageSet": "data.images",
    "ImpConfig": "pipelines.imp",
    "ImpHyperparameters": "pipelines.imp",
    "ImpOptions": "pipelines.imp",
    "Inspection": "observe.anatomy",
    "LayerwiseConfig": "pipelines.layerwise",
    "LayerwisePruneConfig": "pruning.config",
    "NEVER": "hyperparameters",
    "OneShotHyperparameters": "pipelines.one_shot",
    "OutOfMemoryError": "errors",
    "OwnCodeError": "errors",
    "Preprocessing": "data.images",
    "PruneConfig": "pruning.config",
    "PruningData": "data.images",
    "Result": "api.result",
    "StepFineTuneConfig": "training.config",
    "StepRecord": "pipelines.records",
    "Study": "api.run",
    "TrialFailure": "errors",
    "UserError": "errors",
    "export": "exporter",
    "given_data": "api.data",
    "inspect": "api.inspect",
    "load_pruned": "artifact",
    "load_run": "api.run",
    "load_weights": "api.weights",
    "prune": "api.prune",
    "search": "api.search",
}

# Names that an earlier version had, and what took their place.
_MOVED = {
    "PruningResult": "it is ice_ray.Result",
    "PruningSettings": "give prune its fields as keywords, or a pipeline's Config, such as ice_ray.IceConfig",
    "in_process": "what it had is ice_ray.prune and ice_ray.Result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        mend = f": {_MOVED[name]} (docs/moved.md)" if name in _MOVED else ""
        raise AttributeError(f"module 'ice_ray' has no attribute '{name}'{mend}")
    return getattr(importlib.import_module(f"ice_ray.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
