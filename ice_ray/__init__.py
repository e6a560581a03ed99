"""ice_ray: ICE-Pruning as a Ray Tune search and a Ray Train replay.

The jobs are in `jobs/`; in a notebook, `prune` runs the operator in the process itself, without Ray, and
`load_pruned` gives back what a job saved.
"""

import ice_ray.ray_environment  # noqa: F401 - before anything imports Ray
from ice_ray.artifact import load_pruned
from ice_ray.data.images import ImageSet, Preprocessing, PruningData
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.in_process import PruningResult, prune
from ice_ray.pipelines.settings import PruningSettings

__all__ = [
    "Hyperparameters",
    "ImageSet",
    "Preprocessing",
    "PruningData",
    "PruningResult",
    "PruningSettings",
    "UserError",
    "load_pruned",
    "prune",
]
