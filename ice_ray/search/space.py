"""The space of hyperparameters: named spaces of the paper, or the user's own YAML file."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ice_ray.errors import UserError, nearest
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.randomness import seed_of
from ice_ray.search.box import Box

_NAMES = tuple(field.name for field in dataclasses.fields(Hyperparameters))


@dataclass(frozen=True)
class Space:
    """A grid: the values of each hyperparameter, in the file's order.

    Attributes:
        name: for people.
        values: per hyperparameter.
    """

    name: str
    values: dict[str, tuple[float, ...]]

    def points(self) -> tuple[Hyperparameters, ...]:
        """Every point of the grid, the last hyperparameter changing fastest.

        Raises:
            UserError: a point outside a hyperparameter's range.
        """
        columns = [self.values[name] for name in _NAMES]
        return tuple(Hyperparameters(*values) for values in itertools.product(*columns))

    @property
    def box(self) -> Box:
        """What lies between the least and the greatest value of each; valid throughout where the grid is."""
        return Box(self.name, {name: (min(values), max(values)) for name, values in self.values.items()})

    def sample(self, count: int | None, seed: int) -> tuple[Hyperparameters, ...]:
        """`count` different points in seeded random order, as the paper takes them; without a count the whole grid.

        Raises:
            UserError: fewer than one, or more than there are.
        """
        points = self.points()
        if count is None:
            return points
        if not 1 <= count <= len(points):
            raise UserError(
                f"--search.trials {count}: space '{self.name}' has {len(points)} points, take 1 to {len(points)}"
            )
        order = np.random.default_rng(seed_of(seed, "trial order")).permutation(len(points))
        return tuple(points[index] for index in order[:count])


def named_spaces() -> list[str]:
    """The spaces that come with the package."""
    folder = resources.files("ice_ray.search") / "spaces"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_space(name: str) -> Space:
    """A space by name, or from a YAML file: each of the six hyperparameters with a number or a list of them.

    Raises:
        UserError: unknown name, or a file that is no space; every point is checked.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"space '{name}': no such file")
        text = path.read_text(errors="replace")
    elif name in named_spaces():
        text = (resources.files("ice_ray.search") / "spaces" / f"{name}.yaml").read_text()
    else:
        raise UserError(f"unknown space '{name}' ({nearest(name, named_spaces())}; or a .yaml file)")
    space = _parse(name, text)
    space.points()
    return space


def _parse(name: str, text: str) -> Space:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"space '{name}' is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"space '{name}' must map each of {', '.join(_NAMES)} to a list of numbers")
    missing, unknown = set(_NAMES) - set(content), {str(key) for key in content} - set(_NAMES)
    if missing or unknown:
        wrong = f"missing {', '.join(sorted(missing))}" if missing else f"unknown {', '.join(sorted(unknown))}"
        raise UserError(f"space '{name}': {wrong}; it needs exactly {', '.join(_NAMES)}")
    return Space(name, {key: _numbers(name, key, content[key]) for key in _NAMES})


def _numbers(space: str, key: str, found: object) -> tuple[float, ...]:
    values: list[Any] = found if isinstance(found, list) else [found]
    if not values or any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        raise UserError(f"space '{space}': {key} must be a number or a list of numbers, not {found!r}")
    return tuple(dict.fromkeys(float(value) for value in values))
