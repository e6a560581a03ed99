"""Starting from what an earlier search found."""

from __future__ import annotations

import json

from ice_ray.address import Place
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters


def read_winner(path: Place, kind: type[Hyperparameters]) -> Hyperparameters:
    """The winner in the best.json of an earlier search.

    Raises:
        UserError: no such file, no best.json, or values outside the hyperparameters' own ranges.
    """
    origin = f"search.warm_start '{path}'"
    if not path.is_file():
        raise UserError(f"{origin}: no such file; give the best.json of an earlier run")
    try:
        values = json.loads(path.read_text())["hyperparameters"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise UserError(f"{origin} is no best.json of a search ({type(error).__name__}: {error})") from error
    try:
        return kind.from_mapping(values)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
