"""The open trials of a search, how far each is known, and which one a free device goes on with.

What Tune's searcher and scheduler ask when a device is free. Nothing here calls Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ice_ray.cache.actions import ActionIndex, ActionRecord, Key, key_of
from ice_ray.engine.actions import SnapshotId
from ice_ray.engine.network import DenseNetwork
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.dry_run import DryRun, KnownOutcomes, run_dry
from ice_ray.pipelines.records import Preparation

_TIDY_SECONDS = 5.0


class Records(Protocol):
    """What the queue asks of the trials' action cache."""

    def records(self, since: int) -> Sequence[ActionRecord]:
        """Those from the `since`-th on."""

    def release(self, owner: str) -> None:
        """The owner is no more: its claims end."""

    def keep_only(self, needed: Collection[SnapshotId], known: int) -> None:
        """Drop the networks that nobody needs who knows the first `known` records."""


@dataclass
class _Entry:
    pipeline: Pipeline
    known: KnownOutcomes
    dry_run: DryRun
    runs: bool = False


class TrialQueue:
    """The trials that have not ended, each run dry as far as the action cache's records reach.

    Tune pickles its searcher and scheduler, and the queue with them: of that nothing is read back.

    Args:
        network: the dense network.
        validation_images: how many there are.
        root_of: the name of the dense snapshot for a trial; one for all where they share.
        preparation: what all trials start from.
        build: makes the pipeline of a point.
        cache: the trials' action cache.
        capacity: how many trials may run at once, now.
    """

    def __init__(
        self,
        network: DenseNetwork,
        validation_images: int,
        root_of: Callable[[int], SnapshotId],
        preparation: Preparation,
        build: Callable[[Hyperparameters], Pipeline],
        cache: Records,
        capacity: Callable[[], int],
    ) -> None:
        self._network, self._validation_images = network, validation_images
        self._root_of, self._preparation = root_of, preparation
        self._build, self._cache, self._capacity = build, cache, capacity
        self._index = ActionIndex()
        self._known, self._tidied = 0, time.monotonic()
        self._entries: dict[int, _Entry] = {}
        self._awaiting: dict[Key, set[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def add(self, index: int, point: Hyperparameters) -> None:
        """An open trial."""
        pipeline = self._build(point)
        known = KnownOutcomes(self._network, self._root_of(index), self._validation_images, self._index)
        begin = pipeline.begin(known)
        entry = _Entry(pipeline, known, DryRun(begin, "", begin.snapshot))
        self._entries[index] = entry
        self._go_on(index, entry)

    def has_room(self) -> bool:
        """Whether one more trial could run at once."""
        return sum(entry.runs for entry in self._entries.values()) < self._capacity()

    def next(self) -> int | None:
        """The trial that a free device goes on with; None where there is no device, or no trial that need not wait."""
        return self.ready() if self.has_room() else None

    def ready(self) -> int | None:
        """The trial to go on with, of those that do not run; None where all of them wait for what others are at."""
        self._learn()
        waiting = {index: entry.dry_run for index, entry in self._entries.items() if not entry.runs}
        at_work = {entry.dry_run.next for entry in self._entries.values() if entry.runs}
        return choose_trial(waiting, {key for key in at_work if key is not None})

    def start(self, index: int) -> None:
        """The trial has a device."""
        self._entries[index].runs = True

    def pause(self, index: int) -> None:
        """The trial has given its device back."""
        self._entries[index].runs = False

    def lose(self, index: int) -> None:
        """The trial's process has died: its claims end, and the trial is open."""
        self.pause(index)
        self._cache.release(owner_name(index))

    def end(self, index: int) -> None:
        """The trial is over."""
        self._entries.pop(index, None)

    def tidy(self) -> None:
        """Now and then, let go of the networks that no open trial goes on from."""
        if time.monotonic() > self._tidied + _TIDY_SECONDS:
            self._learn()
            self._cache.keep_only(self._needed(), self._known)
            self._tidied = time.monotonic()

    def _needed(self) -> set[SnapshotId]:
        """The networks that open trials go on from."""
        dry_runs = [entry.dry_run for entry in self._entries.values()]
        positions = {snapshot for dry_run in dry_runs for snapshot in (dry_run.position, *dry_run.state.kept)}
        kept = {self._index.nearest_kept(position) for position in positions}
        return {snapshot for snapshot in kept if snapshot is not None}

    def _learn(self) -> None:
        """Run on the trials that were waiting for what has been recorded since the last time."""
        moved: set[int] = set()
        for record in self._cache.records(self._known):
            self._known += 1
            self._index.tell(record)
            moved |= self._awaiting.pop(key_of(record.snapshot, record.action), set())
        for index in sorted(moved & self._entries.keys()):
            self._go_on(index, self._entries[index])

    def _go_on(self, index: int, entry: _Entry) -> None:
        try:
            entry.dry_run = run_dry(entry.pipeline, entry.dry_run.state, self._preparation, entry.known)
        except Exception:
            # A fault in a user's own pipeline is the trial's, and comes up again where that runs.
            entry.dry_run = replace(entry.dry_run, next=owner_name(index))
        if entry.dry_run.next is not None:
            self._awaiting.setdefault(entry.dry_run.next, set()).add(index)


def choose_trial(waiting: Mapping[int, DryRun], at_work: Collection[Key]) -> int | None:
    """The waiting trial to run next, or None where all of them wait for what others are at.

    Trials of which everything is known come first, they take no time. Then the one with the longest way to go, since
    no number of devices shortens a way; of those, one whose next action the most others wait for.

    Args:
        waiting: trials that do not run, by index, each with its dry run.
        at_work: actions that others have claimed.
    """
    sharers = Counter(dry_run.next for dry_run in waiting.values())
    ready = {
        index: dry_run for index, dry_run in waiting.items() if dry_run.next is None or dry_run.next not in at_work
    }

    def urgency(index: int) -> tuple[bool, int, int, int]:
        dry_run = ready[index]
        return dry_run.next is not None, len(dry_run.state.records), -sharers[dry_run.next], index

    return min(ready, key=urgency, default=None)


def owner_name(index: int) -> str:
    """In whose name a trial claims what it is at."""
    return f"trial {index}"
