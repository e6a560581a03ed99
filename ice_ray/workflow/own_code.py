"""What of a job is the user's own code: named before any of it runs."""

from __future__ import annotations

from typing import Any

from ice_ray.config.run import RunConfig
from ice_ray.extensions import is_own, origin_of
from ice_ray.ingest.datasets import is_own_data
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.terminal import say


def name_own_code(config: RunConfig[Any]) -> None:
    """Say which functions of the user's a job will call, and where they lie.

    Raises:
        UserError: one lies neither in the working directory nor among the installed packages.
    """
    own = {
        "model": ModelSpec(config.model, 1).is_users_own,
        "data": is_own_data(config.data),
        **{option: is_own(name) for option, name in config.options.own_code.items()},
        "search.objective": is_own(config.search.objective),
    }
    names = config.as_dict() | {"search.objective": config.search.objective}
    for option in (option for option, is_theirs in own.items() if is_theirs and is_own(names[option])):
        say(f"--{option} {names[option]}: your own code, from {origin_of(names[option], option.rpartition('.')[2])}")
