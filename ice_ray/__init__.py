"""ice_ray: ICE-Pruning as a Ray Tune search and a Ray Train replay.

The jobs are in `jobs/`; in a notebook, `prune` runs the operator in the process itself, without Ray, and
`load_pruned` gives back what a job saved, `export` writes it for other runtimes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import ice_ray.ray_environment  # noqa: F401 - before anything imports Ray
from ice_ray.processor import avoid_unusable_tiles

if TYPE_CHECKING:
    from ice_ray.api.data import given_data
    from ice_ray.api.prune import prune
    from ice_ray.api.result import Result
    from ice_ray.api.run import Study, load_run
    from ice_ray.artifact import load_pruned
    from ice_ray.data.images import ImageSet, Preprocessing, PruningData
    from ice_ray.errors import UserError
    from ice_ray.exporter import export
    from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters
    from ice_ray.pipelines.base import FinalConfig
    from ice_ray.pipelines.ice import EarlyStoppingConfig, FreezeConfig, IceConfig
    from ice_ray.pruning.config import LayerwisePruneConfig
    from ice_ray.training.config import StepFineTuneConfig

__version__ = "0.1.0"

avoid_unusable_tiles()

__all__ = [
    "NEVER",
    "EarlyStoppingConfig",
    "FinalConfig",
    "FreezeConfig",
    "Hyperparameters",
    "IceConfig",
    "IceHyperparameters",
    "ImageSet",
    "LayerwisePruneConfig",
    "Preprocessing",
    "PruningData",
    "Result",
    "StepFineTuneConfig",
    "Study",
    "UserError",
    "export",
    "given_data",
    "load_pruned",
    "load_run",
    "prune",
]

# Loaded when asked for: a process that only decodes images needs no torch, which takes seconds to load.
_HOMES = {
    "NEVER": "hyperparameters",
    "EarlyStoppingConfig": "pipelines.ice",
    "FinalConfig": "pipelines.base",
    "FreezeConfig": "pipelines.ice",
    "Hyperparameters": "hyperparameters",
    "IceConfig": "pipelines.ice",
    "IceHyperparameters": "hyperparameters",
    "ImageSet": "data.images",
    "Preprocessing": "data.images",
    "PruningData": "data.images",
    "Result": "api.result",
    "LayerwisePruneConfig": "pruning.config",
    "StepFineTuneConfig": "training.config",
    "Study": "api.run",
    "UserError": "errors",
    "export": "exporter",
    "given_data": "api.data",
    "load_pruned": "artifact",
    "load_run": "api.run",
    "prune": "api.prune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ice_ray' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ice_ray.{_HOMES[name]}"), name)
