"""What has been carried out before: (snapshot, action) and what it led to, shared by all that work from the same root.

A snapshot is named by its whole history, so whoever asks for the same action on the same snapshot would compute the
same bits. The index knows outcomes and who is at work on which; networks lie elsewhere, and one that is gone is made
again from the snapshot it came from.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from ice_ray.engine.actions import Action, FineTune, Mask, Outcome, Reinitialise, Repair, SnapshotId, next_id
from ice_ray.engine.snapshots import Snapshot

Key = str
"""Names an action on a snapshot."""


def is_kept(action: Action) -> bool:
    """Whether the network that an action leads to is kept: a removal is made again in no time, a repair is not."""
    return isinstance(action, (FineTune, Repair, Mask, Reinitialise))


@lru_cache(20_000)
def key_of(snapshot: SnapshotId, action: Action) -> Key:
    """The key of an action on a snapshot."""
    return next_id(snapshot, action)


@dataclass(frozen=True)
class ActionRecord:
    """An action that has been carried out on a snapshot.

    Attributes:
        outcome: what it led to; None where it failed for good, whoever tries it.
        failure: why, else empty.
        seconds: wall time that it took whoever did it, with what was at hand; `outcome.cost` is what it takes alone.
    """

    snapshot: SnapshotId
    action: Action
    outcome: Outcome | None
    failure: str = ""
    seconds: float = 0.0


Answer = ActionRecord | Literal["granted", "taken"]


@dataclass
class _Claim:
    owner: str
    ends: float


class ActionIndex:
    """Action records by key, claims on actions in progress, and where every snapshot came from. One process holds it.

    Args:
        lease_seconds: how long a claim holds without a word from its owner.
        now: the clock of the leases.
    """

    def __init__(self, lease_seconds: float = 30.0, now: Callable[[], float] = time.monotonic) -> None:
        self._lease, self._now = lease_seconds, now
        self._records: dict[Key, ActionRecord] = {}
        self._claims: dict[Key, _Claim] = {}
        self._origins: dict[SnapshotId, ActionRecord] = {}

    def ask(self, snapshot: SnapshotId, action: Action, owner: str) -> Answer:
        """The action record; or `granted`: nobody knows, and the asker has the claim; or `taken`: another has it."""
        key = key_of(snapshot, action)
        if key in self._records:
            return self._records[key]
        if self.is_taken(key) and self._claims[key].owner != owner:
            return "taken"
        self._claims[key] = _Claim(owner, self._now() + self._lease)
        return "granted"

    def known(self, key: Key) -> ActionRecord | None:
        """The action record of that key."""
        return self._records.get(key)

    def is_taken(self, key: Key) -> bool:
        """Whether somebody is at work on it."""
        return key in self._claims and self._claims[key].ends > self._now()

    def tell(self, record: ActionRecord) -> bool:
        """Keep an action record; its claim ends. Told twice (by an owner whose lease had run out), the first stays.
        Whether it was new.
        """
        key = key_of(record.snapshot, record.action)
        self._claims.pop(key, None)
        if key in self._records:
            return False
        self._records[key] = record
        if record.outcome is not None and record.outcome.snapshot != record.snapshot:
            self._origins.setdefault(record.outcome.snapshot, record)
        return True

    def renew(self, owner: str) -> None:
        """The owner is alive: its claims hold for another lease."""
        for claim in self._claims.values():
            if claim.owner == owner:
                claim.ends = self._now() + self._lease

    def release(self, owner: str) -> None:
        """The owner gave up, or is no more: its claims end."""
        self._claims = {key: claim for key, claim in self._claims.items() if claim.owner != owner}

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        """The action record that led to a snapshot."""
        return self._origins.get(snapshot)

    def nearest_kept(self, snapshot: SnapshotId) -> SnapshotId | None:
        """The last snapshot on the way to this one whose network is kept: what a fine-tune or a repair led to. None
        where there has been neither.
        """
        while (origin := self._origins.get(snapshot)) is not None:
            if is_kept(origin.action):
                return snapshot
            snapshot = origin.snapshot
        return None

    def records(self, since: int = 0) -> tuple[ActionRecord, ...]:
        """All of them from the `since`-th on, in the order in which they were told."""
        return tuple(itertools.islice(self._records.values(), since, None))


class ActionCache(Protocol):
    """One worker's access to what all remember."""

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        """As `ActionIndex.ask`, for this worker."""

    def tell(self, record: ActionRecord, content: Snapshot | None) -> None:
        """Keep an action record of this worker's, and the network that it led to."""

    def keep(self, content: Snapshot) -> None:
        """Keep a network that had been forgotten and was made again."""

    def release(self) -> None:
        """This worker's claims end."""

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        """The action record that led to a snapshot."""

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network of a snapshot, where it is kept."""


class LocalActionCache:
    """Memory inside one process: an index and networks that several executors share.

    Args:
        contents: networks by id, shared like the index.
        owner: this worker's name.
    """

    def __init__(self, index: ActionIndex, contents: dict[SnapshotId, Snapshot], owner: str = "") -> None:
        self._index, self._contents, self._owner = index, contents, owner

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        """As `ActionIndex.ask`."""
        return self._index.ask(snapshot, action, self._owner)

    def tell(self, record: ActionRecord, content: Snapshot | None) -> None:
        """The network first: whoever hears of the action record may ask for it."""
        if content is not None:
            self._contents[content.id] = content
        self._index.tell(record)

    def keep(self, content: Snapshot) -> None:
        """Keep a network that had been forgotten and was made again."""
        self._contents[content.id] = content

    def release(self) -> None:
        """This worker's claims end."""
        self._index.release(self._owner)

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        """The action record that led to a snapshot."""
        return self._index.origin(snapshot)

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network of a snapshot, where it is kept."""
        return self._contents.get(snapshot)
