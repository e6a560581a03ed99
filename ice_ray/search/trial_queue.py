"""Where every open trial of a search stands, and which one a free device goes on with. Knows nothing of Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ice_ray.cache.actions import ActionIndex, ActionRecord, Key, key_of
from ice_ray.engine.actions import SnapshotId
from ice_ray.engine.network import DenseNetwork
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.dry_run import DryRun, KnownOutcomes, run_dry
from ice_ray.pipelines.records import Preparation
from ice_ray.search.trial_choice import choose_trial


@dataclass
class _Entry:
    pipeline: Pipeline
    known: KnownOutcomes
    dry_run: DryRun
    runs: bool = False


class TrialQueue:
    """The trials that have not ended, each followed as far as what has been told of reaches.

    Args:
        network: the dense network.
        validation_images: how many images decide.
        root_of: the name of the dense snapshot for a trial; one for all where they share.
        preparation: what all trials start from.
    """

    def __init__(
        self,
        network: DenseNetwork,
        validation_images: int,
        root_of: Callable[[int], SnapshotId],
        preparation: Preparation,
    ) -> None:
        self._network, self._validation_images = network, validation_images
        self._root_of, self._preparation = root_of, preparation
        self._index = ActionIndex()
        self._told = 0
        self._entries: dict[int, _Entry] = {}
        self._awaiting: dict[Key, set[int]] = {}

    @property
    def told(self) -> int:
        """How many action records it knows."""
        return self._told

    @property
    def running(self) -> int:
        """Trials that have a device, or have been given leave to take one."""
        return sum(entry.runs for entry in self._entries.values())

    def add(self, index: int, pipeline: Pipeline) -> None:
        """A trial that is open."""
        known = KnownOutcomes(self._network, self._root_of(index), self._validation_images, self._index)
        begin = pipeline.begin(known)
        entry = _Entry(pipeline, known, DryRun(begin, "", begin.snapshot))
        self._entries[index] = entry
        self._go_on(index, entry)

    def learn(self, records: Iterable[ActionRecord]) -> None:
        """Follow the trials that were waiting for these."""
        moved: set[int] = set()
        for record in records:
            self._told += 1
            self._index.tell(record)
            moved |= self._awaiting.pop(key_of(record.snapshot, record.action), set())
        for index in sorted(moved & self._entries.keys()):
            self._go_on(index, self._entries[index])

    def start(self, index: int) -> None:
        """The trial has a device."""
        self._entries[index].runs = True

    def pause(self, index: int) -> None:
        """The trial has given its device back."""
        self._entries[index].runs = False

    def end(self, index: int) -> None:
        """The trial is over."""
        self._entries.pop(index, None)

    def choose(self) -> int | None:
        """The trial to go on with, of those that do not run; None where all of them wait for what others are at."""
        waiting = {index: entry.dry_run for index, entry in self._entries.items() if not entry.runs}
        at_work = {entry.dry_run.next for entry in self._entries.values() if entry.runs}
        return choose_trial(waiting, {key for key in at_work if key is not None})

    def needed(self) -> set[SnapshotId]:
        """The networks that open trials go on from."""
        dry_runs = [entry.dry_run for entry in self._entries.values()]
        positions = {snapshot for dry_run in dry_runs for snapshot in (dry_run.position, *dry_run.state.kept)}
        kept = {self._index.nearest_kept(position) for position in positions}
        return {snapshot for snapshot in kept if snapshot is not None}

    def _go_on(self, index: int, entry: _Entry) -> None:
        try:
            entry.dry_run = run_dry(entry.pipeline, entry.dry_run.state, self._preparation, entry.known)
        except Exception:
            # A fault in a user's own pipeline is the trial's, and comes up again where that runs.
            entry.dry_run = replace(entry.dry_run, next=f"trial {index}")
        if entry.dry_run.next is not None:
            self._awaiting.setdefault(entry.dry_run.next, set()).add(index)
