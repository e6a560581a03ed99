"""The points of a search in the order of its trials, on the run's own storage, written before each is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ice_ray.address import Place, place
from ice_ray.errors import UserError
from ice_ray.files import damage_named, write_json
from ice_ray.hyperparameters import Hyperparameters


class PointLog:
    """The file that says which hyperparameters a trial's index stands for, whatever has run of it."""

    def __init__(self, path: Path | Place, kind: type[Hyperparameters]) -> None:
        self._path, self._kind = place(path), kind

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
