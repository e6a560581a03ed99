"""Actions that have been carried out: (snapshot, action) and the outcome, shared by all who start from the same root.

A snapshot is named by its whole history, so the same action on the same snapshot gives the same bits, whoever carries
it out. The index holds outcomes and claims; networks are stored elsewhere, and one that is missing is made again from
the snapshot before it.
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
    """Whether the network after an action is kept: a removal is quickly made again, a fine-tune or a repair is not."""
    return isinstance(action, (FineTune, Repair, Mask, Reinitialise))


@lru_cache(20_000)
def key_of(snapshot: SnapshotId, action: Action) -> Key:
    return next_id(snapshot, action)


@dataclass(frozen=True)
class ActionRecord:
    """An action that has been carried out on a snapshot.

    Attributes:
        outcome: None where the action failed and would fail for everyone.
        failure: why it failed, else empty.
        seconds: wall time that it took here, cached parts included; `outcome.cost` is what it takes without any cache.
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
        """The record if the action is known; `granted` if the asker now has the claim on it; `taken` if another has."""
        key = key_of(snapshot, action)
        if key in self._records:
            return self._records[key]
        if self.is_taken(key) and self._claims[key].owner != owner:
            return "taken"
        self._claims[key] = _Claim(owner, self._now() + self._lease)
        return "granted"

    def known(self, key: Key) -> ActionRecord | None:
        return self._records.get(key)

    def is_taken(self, key: Key) -> bool:
        """Whether a worker has a claim on the action."""
        return key in self._claims and self._claims[key].ends > self._now()

    def tell(self, record: ActionRecord) -> bool:
        """Add a record and end the claim on its action. False where the action was known already: the first record
        stays.
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
        """Extend the owner's claims by another lease."""
        for claim in self._claims.values():
            if claim.owner == owner:
                claim.ends = self._now() + self._lease

    def release(self, owner: str) -> None:
        """End the owner's claims."""
        self._claims = {key: claim for key, claim in self._claims.items() if claim.owner != owner}

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        """The action record that led to a snapshot."""
        return self._origins.get(snapshot)

    def nearest_kept(self, snapshot: SnapshotId) -> SnapshotId | None:
        """The last snapshot in the history of this one (itself included) whose network is kept; None where there is
        none.
        """
        while (origin := self._origins.get(snapshot)) is not None:
            if is_kept(origin.action):
                return snapshot
            snapshot = origin.snapshot
        return None

    def records(self, since: int = 0) -> tuple[ActionRecord, ...]:
        """All records from the `since`-th on, in the order in which they were added."""
        return tuple(itertools.islice(self._records.values(), since, None))


class ActionCache(Protocol):
    """One worker's access to the shared records and networks."""

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        """As `ActionIndex.ask`, for this worker."""

    def tell(self, record: ActionRecord, content: Snapshot | None) -> None:
        """Add a record of this worker's, and the network that the action led to."""

    def keep(self, content: Snapshot) -> None:
        """Store a network that had been dropped and was made again."""

    def release(self) -> None:
        """End this worker's claims."""

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        """The action record that led to a snapshot."""

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network of a snapshot, where it is stored."""


class LocalActionCache:
    """An action cache inside one process: an index and networks that several executors share.

    Args:
        contents: networks by id, shared like the index.
        owner: this worker's name.
    """

    def __init__(self, index: ActionIndex, contents: dict[SnapshotId, Snapshot], owner: str = "") -> None:
        self._index, self._contents, self._owner = index, contents, owner

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        return self._index.ask(snapshot, action, self._owner)

    def tell(self, record: ActionRecord, content: Snapshot | None) -> None:
        """Store the network first: another worker may ask for it as soon as the record is known."""
        if content is not None:
            self._contents[content.id] = content
        self._index.tell(record)

    def keep(self, content: Snapshot) -> None:
        self._contents[content.id] = content

    def release(self) -> None:
        self._index.release(self._owner)

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        return self._index.origin(snapshot)

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        return self._contents.get(snapshot)
