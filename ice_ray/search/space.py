"""The space of hyperparameters: a pipeline's own spaces by name, or the user's YAML file."""

from __future__ import annotations

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from ice_ray.address import at_home
from ice_ray.errors import UserError, nearest
from ice_ray.files import parse_yaml
from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters, check_names
from ice_ray.pipelines.registry import pipeline_named, related
from ice_ray.randomness import seed_of
from ice_ray.search.bounds import SearchBounds

_MOST_POINTS = 100_000


@dataclass(frozen=True)
class Space:
    """A grid: the values of each hyperparameter, in the file's order.

    Attributes:
        name: for people.
        values: per hyperparameter; those that are not named keep their default.
        kind: what they are values of.
    """

    name: str
    values: dict[str, tuple[float, ...]]
    kind: type[Hyperparameters] = IceHyperparameters

    def points(self) -> tuple[Hyperparameters, ...]:
        """Every point of the grid, the last hyperparameter changing fastest; those that mean the same once.

        Raises:
            UserError: a point outside a hyperparameter's range, or more points than anyone can try.
        """
        if math.prod(map(len, self.values.values())) > _MOST_POINTS:
            raise UserError(
                f"space '{self.name}' has more than {_MOST_POINTS} points: give the least and the greatest value of "
                "each hyperparameter, and let search.algorithm random, tpe or gp choose between them"
            )
        names = [name for name in self.kind.names() if name in self.values]
        columns = [self.values[name] for name in names]
        points = (self.kind(**dict(zip(names, values, strict=True))) for values in itertools.product(*columns))
        return tuple(dict.fromkeys(point.settled for point in points))

    @property
    def bounds(self) -> SearchBounds:
        """What lies between the least and the greatest value of each; valid throughout where the grid is."""
        nevers = tuple(name for name, values in self.values.items() if NEVER in values)
        finite = {name: [value for value in values if value != NEVER] for name, values in self.values.items()}
        idle = {other for name in nevers if not finite[name] for other in self.kind.decided_by(name)}
        ranges = {name: (min(own), max(own)) for name, own in finite.items() if own and name not in idle}
        return SearchBounds(self.name, ranges, self.kind, nevers)

    def fixing(self, names: Collection[str]) -> Space:
        """Without a choice of those that decide nothing: their first value alone, and not never.

        Raises:
            UserError: one of them is never throughout, so that others, which do decide, need have no value.
        """
        first = {name: [value for value in own if value != NEVER][:1] for name, own in self.values.items()}
        for name in names:
            if not first.get(name, [0]):
                raise UserError(
                    f"space '{self.name}': {name} is always never, and a run that does not go by it needs a finite "
                    f"one, with {', '.join(n for n in self.kind.names() if n in self.kind.decided_by(name))}"
                )
        values = {name: tuple(first[name]) if name in names else own for name, own in self.values.items()}
        return dataclasses.replace(self, values=values)

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
                f"search.trials {count}: space '{self.name}' has {len(points)} points, take 1 to {len(points)}"
            )
        order = np.random.default_rng(seed_of(seed, "trial order")).permutation(len(points))
        return tuple(points[index] for index in order[:count])


def named_spaces(pipeline: str = "ice") -> list[str]:
    """The spaces that come with the package, for a pipeline by name."""
    folder = _folder(pipeline)
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_space(name: str, pipeline: str = "ice") -> Space:
    """A space of a pipeline by name, or from a YAML file: each hyperparameter with a number or a list of them.

    Raises:
        UserError: unknown name, or a file that is no space; every point is checked.
    """
    kind = pipeline_named(pipeline).Hyperparameters
    if name.endswith((".yaml", ".yml")):
        path = Path(at_home(name))
        if not path.is_file():
            raise UserError(f"space '{name}': no such file")
        text = path.read_text(errors="replace")
    elif name in (known := named_spaces(pipeline)):
        text = (_folder(pipeline) / f"{name}.yaml").read_text()
    else:
        near = f"{nearest(name, known)}; or " if known else "it has none by name; give "
        raise UserError(f"unknown space '{name}' of pipeline {pipeline} ({near}a .yaml file)")
    space = _parse(name, text, kind)
    space.points()
    return space


def _folder(pipeline: str) -> Traversable:
    """Of a pipeline's spaces. One of the user's own takes those of the pipeline whose hyperparameters it searches."""
    return resources.files("ice_ray.search") / "spaces" / related(pipeline)


def _parse(name: str, text: str, kind: type[Hyperparameters]) -> Space:
    content = parse_yaml(text, f"space '{name}'")
    if not isinstance(content, dict):
        raise UserError(f"space '{name}' must map each of {', '.join(kind.required())} to a list of numbers")
    check_names(kind, content, f"space '{name}'")
    return Space(name, {key: _numbers(name, key, content[key], kind) for key in kind.names() if key in content}, kind)


def _numbers(space: str, key: str, found: object, kind: type[Hyperparameters]) -> tuple[float, ...]:
    values: list[Any] = found if isinstance(found, list) else [found]
    may_be_never = key in kind.may_be_never()
    numbers = [NEVER if may_be_never and value == "never" else value for value in values]
    if not values or any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in numbers):
        or_never = ", or never" if may_be_never else ""
        raise UserError(
            f"space '{space}': {key} must be a number or a list of numbers{or_never}, not {reprlib.repr(found)}"
        )
    return tuple(dict.fromkeys(float(value) for value in numbers))
