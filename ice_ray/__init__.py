"""ice_ray: ICE-Pruning as a Ray Tune search and a Ray Train replay."""

from ice_ray.artifact import load_pruned
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters

__all__ = ["Hyperparameters", "UserError", "load_pruned"]
