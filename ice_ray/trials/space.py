"""The space of hyperparameters, by name or from the user's YAML file: a grid, and the bounds that it spans."""

from __future__ import annotations

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ice_ray.address import at_home
from ice_ray.errors import UserError, nearest
from ice_ray.files import parse_yaml
from ice_ray.hyperparameters import NEVER, Hyperparameters, IceHyperparameters, check_names, spelled
from ice_ray.pipelines.registry import pipeline_named, related
from ice_ray.randomness import seed_of
from ice_ray.wording import counted

_MOST_POINTS = 100_000
_RENAMED = {  # spaces of earlier versions
    "digits": "default",
    "cifar10": "paper-cifar10",
    "tinyimagenet": "paper-tinyimagenet",
}


@dataclass(frozen=True)
class SearchBounds:
    """Ranges, ends included; rates are measured on a logarithmic scale. A hyperparameter may also be never.

    Attributes:
        name: the space's, for people.
        ranges: least and greatest finite value per hyperparameter, in their order; equal where it is fixed.
        kind: what they are ranges of.
        nevers: hyperparameters that may be never: always so where they have no range, else as often as not.
    """

    name: str
    ranges: dict[str, tuple[float, float]]
    kind: type[Hyperparameters] = IceHyperparameters
    nevers: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """Hyperparameters that are either never or in their range."""
        return tuple(name for name in self.nevers if name in self.ranges)

    @property
    def is_a_point(self) -> bool:
        """Whether every hyperparameter is fixed."""
        return not self.choices and all(least == greatest for least, greatest in self.ranges.values())

    @property
    def greatest(self) -> Hyperparameters:
        """The corner of all greatest values but for what must be smaller than another: those are at their least."""
        return self._at([0.0 if name in self.kind.logarithmic() else 1 - 1e-9 for name in self.ranges], ())

    @property
    def middle(self) -> Hyperparameters:
        """Half way between the least and the greatest of each, on its scale."""
        return self._at([0.5] * len(self.ranges), ())

    def draw(self, count: int, seed: int) -> tuple[Hyperparameters, ...]:
        """`count` points, uniform within; the first ones are the same whatever `count` is."""
        from numpy.random import default_rng  # here: --help and a wrong word do without

        choices = self.choices
        shares = default_rng(seed_of(seed, "random points")).random((count, len(choices) + len(self.ranges)))
        return tuple(
            self._at(
                [float(share) for share in row[len(choices) :]],
                [name for name, share in zip(choices, row, strict=False) if share < 0.5],
            )
            for row in shares
        )

    def point(self, values: Mapping[str, float], never: Collection[str]) -> Hyperparameters:
        """Of values within the ranges, and some of `choices` that are never instead: without what is idle then."""
        never = {*never, *(name for name in self.nevers if name not in self.ranges)}
        idle = frozenset[str]().union(*map(self.kind.decided_by, never))
        own = {name: value for name, value in values.items() if name not in idle}
        return self.kind(**own | dict.fromkeys(never, NEVER))

    def idle_in(self, point: Hyperparameters) -> frozenset[str]:
        """What decides nothing in a point of which something is never."""
        return frozenset[str]().union(
            *(self.kind.decided_by(name) for name in self.nevers if getattr(point, name) == NEVER)
        )

    def check(self, point: Hyperparameters, origin: str) -> None:
        """Refuse a point outside.

        Raises:
            UserError: which of its values is, and where it came from.
        """
        idle = point.idle
        for name, value in point.as_dict().items():
            default = self.kind.defaults().get(name, 0.0)
            least, greatest = self.ranges.get(name, (default, default))
            if name in idle or (value == NEVER and name in self.nevers) or least <= value <= greatest:
                continue
            within = "never" if least == NEVER else f"{least:g} to {greatest:g}{' or never' * (name in self.choices)}"
            raise UserError(
                f"{origin}: {name}={spelled(value)} is outside of space '{self.name}' ({within}); give a wider space"
            )

    def _at(self, shares: list[float], never: Collection[str]) -> Hyperparameters:
        values = {
            name: _whole(*self.ranges[name], share)
            if name in self.kind.whole()
            else _between(*self.ranges[name], share, name in self.kind.logarithmic())
            for name, share in zip(self.ranges, shares, strict=True)
        }
        return self.point(values, never)


def _whole(least: float, greatest: float, share: float) -> float:
    return least + math.floor(share * (greatest - least + 1))


def _between(least: float, greatest: float, share: float, logarithmic: bool) -> float:
    """At `share`, in [0, 1), of the way; never outside for the sake of rounding."""
    if logarithmic and 0 < least < greatest:  # from 0 on there is no such scale
        value = math.exp(math.log(least) + share * (math.log(greatest) - math.log(least)))
    else:
        value = least + share * (greatest - least)
    return min(max(value, least), greatest)


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
                f"search.trials {count}: space '{self.name}' has {counted(len(points), 'point')}, take 1 to "
                f"{len(points)}"
            )
        from numpy.random import default_rng

        order = default_rng(seed_of(seed, "trial order")).permutation(len(points))
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
    else:
        check_space_name(name, pipeline)
        text = (_folder(pipeline) / f"{name}.yaml").read_text()
    space = _parse(name, text, kind)
    space.points()
    return space


def check_space_name(name: str, pipeline: str) -> None:
    """Raises UserError: it is neither a YAML file's nor that of a space of the pipeline. Reads no file."""
    known = named_spaces(pipeline)
    if name.endswith((".yaml", ".yml")) or name in known:
        return
    if (now := _RENAMED.get(name)) in known:
        raise UserError(f"space '{name}' is now '{now}'")
    near = f"{nearest(name, known)}; or " if known else "it has none by name; give "
    raise UserError(f"unknown space '{name}' of pipeline {pipeline} ({near}a .yaml file)")


def _folder(pipeline: str) -> Traversable:
    """Of a pipeline's spaces. One of the user's own takes those of the pipeline whose hyperparameters it searches."""
    return resources.files("ice_ray.trials") / "spaces" / related(pipeline)


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
