"""What a search tries: points known in advance, how the others are found, and the log of all of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError
from ice_ray.files import damage_named, write_json
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.sampler import Sampling
from ice_ray.trials.space import SearchBounds, Space

_MORE_DRAWS = 16


@dataclass(frozen=True)
class Proposals:
    """The trials of a search, in their order.

    Attributes:
        known: points of the first trials, or of all of them.
        sampling: how the points of the others are found while the search runs; None where all are known.
        origin: the words for a person: "grid", "tpe, warm start first".
    """

    known: tuple[Hyperparameters, ...]
    sampling: Sampling | None = None
    origin: str = "grid"

    @property
    def total(self) -> int:
        """Trials of the search."""
        return self.sampling.total if self.sampling else len(self.known)

    @property
    def freezes(self) -> bool:
        """Whether a trial may hold layers fixed, and so the freezing probe is needed."""
        most = (self.sampling.bounds.greatest,) if self.sampling else ()
        return any(point.freezes for point in (*self.known, *most))


def propose(space: Space, config: SearchConfig, seed: int) -> Proposals:
    """What the options ask for. A warm start is trial 0, whatever finds the others, and one of `config.trials`.

    Raises:
        UserError: more points asked for than there are, nothing to vary, a warm start that cannot be used.
    """
    bounds, warm = space.bounds, _warm_start(space.bounds, config)
    origin = config.algorithm + (", warm start first" if warm else "")
    if config.algorithm == "grid":
        return Proposals(_first(warm, space.sample(config.trials, seed), config.trials), None, origin)
    if bounds.is_a_point:
        raise UserError(
            f"search.algorithm {config.algorithm}: space '{space.name}' is a single point; give ranges in "
            "it, or take the grid"
        )
    trials = config.trials or 1  # SearchConfig has made sure that it is given
    if config.algorithm == "random":
        return Proposals(_random(warm, bounds, trials, seed), None, origin)
    return Proposals(warm, Sampling(config.algorithm, bounds, trials, seed, warm), origin)


def _warm_start(bounds: SearchBounds, config: SearchConfig) -> tuple[Hyperparameters, ...]:
    """The earlier run's winner, where one is named."""
    if config.warm_start is None:
        return ()
    point = read_winner(storage_path(config.warm_start), bounds.kind).settled
    if not point.final_epochs:  # samplers know no point outside: any rate within, for nothing is retrained
        least, _ = bounds.ranges.get("final_learning_rate", (0.0, 0.0))
        point = dataclasses.replace(point, final_learning_rate=least)
    bounds.check(point, f"search.warm_start '{config.warm_start}'")
    return (point,)


def _random(
    warm: tuple[Hyperparameters, ...], bounds: SearchBounds, trials: int, seed: int
) -> tuple[Hyperparameters, ...]:
    """The warm start and draws; where some of them mean the same, as those of which theta is never, more of them."""
    for times in (1, _MORE_DRAWS):
        points = _first(warm, bounds.draw(times * trials, seed), trials)
        if len(points) == trials or not bounds.choices:
            break
    return points


def _first(
    warm: tuple[Hyperparameters, ...], points: tuple[Hyperparameters, ...], count: int | None
) -> tuple[Hyperparameters, ...]:
    """The warm start in front, and only there."""
    return tuple(dict.fromkeys(point.settled for point in (*warm, *points)))[:count]


def read_winner(path: StoragePath, kind: type[Hyperparameters]) -> Hyperparameters:
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


class PointLog:
    """The file that says which hyperparameters a trial's index stands for."""

    def __init__(self, path: Path | StoragePath, kind: type[Hyperparameters]) -> None:
        self._path, self._kind = storage_path(path), kind

    def load(self) -> tuple[Hyperparameters, ...]:
        """All points so far."""
        if not self._path.is_file():
            return ()
        with damage_named(self._path):
            return tuple(self._kind.from_mapping(values) for values in json.loads(self._path.read_text()))

    def check(self, known: Sequence[Hyperparameters]) -> None:
        """Refuse a search that would start from other points than it was begun with.

        Raises:
            UserError: so. The options are the same when this is asked, so a file that they name has changed.
        """
        found = self.load()
        if found and found[: len(known)] != tuple(known):
            raise UserError(
                f"'{self._path.parent.parent}' was begun with other points: the file of its space or "
                "search.warm_start has changed since; restore it, or take another name"
            )

    def begin(self, known: Sequence[Hyperparameters]) -> None:
        """Write down the points known in advance, where that has not been done."""
        self.check(known)
        if not self._path.is_file():
            self._save(tuple(known))

    def append(self, point: Hyperparameters) -> int:
        """Write down one more point; returns the index of its trial."""
        points = (*self.load(), point)
        self._save(points)
        return len(points) - 1

    def _save(self, points: tuple[Hyperparameters, ...]) -> None:
        self._path.parent.make_folder()
        write_json(self._path, [point.plain() for point in points])
