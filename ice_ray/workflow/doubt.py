"""A word before hours are spent on a dense model that knows nothing."""

from __future__ import annotations

from typing import Any

from ice_ray.config.run import RunConfig
from ice_ray.data.images import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.ingest.datasets.base import Labels
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.registry import pipeline_named


def doubt_of_dense(config: RunConfig[Any], accuracy: float, labels: Labels) -> str | None:
    """A line on a dense model that may as well be guessing, with what is to be looked at first; None where it may not.

    Args:
        accuracy: on the validation images, percent.
        labels: of those.
    """
    if pipeline_named(config.pipeline).trains_anew:
        return None
    doubt = no_better_than_chance(accuracy, labels)
    if doubt is None:
        return None
    untrained = config.weights is None and ModelSpec(config.model, 2).is_users_own
    are_defaults = (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)
    dress = "--mean and --std are ImageNet's: was it trained with those" if are_defaults else "are --mean and --std its"
    first = f"no --weights are given: does {config.model} return a trained network? Else: " if untrained else ""
    return f"{doubt}; {first}{dress}, and with this order of the classes?"
