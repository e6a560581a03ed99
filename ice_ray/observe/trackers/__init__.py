"""Experiment trackers of one's own choice, told of trials and the replay through Ray's callbacks. Off by default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from ice_ray.address import StoragePath

if TYPE_CHECKING:
    from ice_ray.observe.trackers.runs import TrackedRuns

Tracker = Literal["mlflow", "wandb"]


class _TrackerModule(Protocol):
    def check(self) -> None: ...

    def open_tracker(self, run: str, folder: StoragePath) -> TrackedRuns: ...


def check_trackers(names: Sequence[Tracker]) -> None:
    """Whether they can be used, before anything is run.

    Raises:
        UserError: an extra is missing, or a server does not answer, or has no key.
    """
    for name in names:
        _module(name).check()


@contextmanager
def tracked(names: Sequence[Tracker], run: str, folder: StoragePath) -> Iterator[list[TrackedRuns]]:
    """One for each name, while the block runs; all of a run's in one place of theirs, called after it.

    Args:
        folder: for what they keep in files, if their own variables say nothing else.
    """
    trackers = [_module(name).open_tracker(run, folder) for name in names]
    try:
        for tracker in trackers:
            tracker.open()
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def _module(name: Tracker) -> _TrackerModule:
    """Imported only where it is asked for."""
    if name == "mlflow":
        from ice_ray.observe.trackers import mlflow_tracker

        return mlflow_tracker
    from ice_ray.observe.trackers import wandb_tracker

    return wandb_tracker
