"""The action cache of a search: its index in one actor, its networks in the object store and on the run's storage."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ice_ray.address import StoragePath
from ice_ray.cache.actions import ActionIndex, ActionRecord, Answer, Key, key_of
from ice_ray.cache.storage import ActionLog, NetworkFiles
from ice_ray.cache.teacher import LocalTeacherCache, TeacherAnswers
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.session import fetch
from ice_ray.engine.actions import Action, SnapshotId
from ice_ray.engine.snapshots import Snapshot

LEASE_SECONDS = 60.0
_SIGNS_PER_LEASE = 4
_KNOWN_AT_HAND = 20_000


@dataclass(frozen=True)
class Budget:
    """Bytes of networks that may be kept.

    Attributes:
        memory: in the object store; what does not fit is read from storage.
        disk: on the run's storage; what does not fit is made again where it is needed.
    """

    memory: float
    disk: float


def action_log(folder: StoragePath) -> ActionLog:
    """The action log of the search whose storage is `folder`."""
    return ActionLog(folder / "actions.jsonl")


def clear_networks(folder: StoragePath) -> None:
    """Remove the networks that the trials shared."""
    _networks(folder).clear()


def _networks(folder: StoragePath) -> NetworkFiles:
    return NetworkFiles(folder / "networks")


class ActionCacheServer(ActionIndex):
    """The index, as an actor. Started again after a crash it reads its log; claims are lost then, so the worst is that
    something is done twice.
    """

    def __init__(self, folder: StoragePath, budget: Budget) -> None:
        super().__init__(LEASE_SECONDS)
        self._log, self._files, self._budget = action_log(folder), _networks(folder), budget
        self._fault_log = FaultLog.of(folder.parent)
        for record in self._log.load():
            super().tell(record)
        self._sizes, self._needed = self._files.sizes(), set[SnapshotId]()
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        if _was_restarted():
            self._fault_log.note("action cache restart")

    def tell(self, record: ActionRecord) -> bool:
        if self.known(key_of(record.snapshot, record.action)) is None:
            self._log.append(record)  # first: what has been told must outlive this process
            self._fault_log.note_retries()
        return super().tell(record)

    def keep(self, snapshot: SnapshotId, size: int, content: Sequence[Any]) -> None:
        """Keep a network that its worker has written to storage.

        Args:
            size: in bytes.
            content: a reference to it, in a sequence so that it stays one.
        """
        self._sizes[snapshot] = size
        self.hold(snapshot, size, content)
        if sum(self._sizes.values()) > self._budget.disk:
            self._drop(excess(self._sizes, self._seconds(), self._needed, self._budget.disk))

    def hold(self, name: str, size: int, content: Sequence[Any]) -> None:
        """Keep a network, or answers of the teacher, in memory as long as its worker lives; the oldest go first."""
        self._held.pop(name, None)
        if size <= self._budget.memory:
            self._held[name] = content[0], size
        while sum(size for _, size in self._held.values()) > self._budget.memory:
            self._held.popitem(last=False)

    def held(self, name: str) -> Any:
        """A reference to the network of a snapshot or the answers of a key; None where memory does not hold it."""
        return self._held.get(name, (None,))[0]

    def keep_only(self, needed: Collection[SnapshotId], known: int) -> None:
        """Drop the networks but those in `needed` and those of records after the first `known`."""
        self._needed = set(needed)
        newer = {record.outcome.snapshot for record in self.records(known) if record.outcome is not None}
        self._drop(set(self._sizes) - set(needed) - newer)

    def _drop(self, snapshots: Collection[SnapshotId]) -> None:
        for snapshot in snapshots:
            self._held.pop(snapshot, None)
            self._sizes.pop(snapshot, None)
            self._files.remove(snapshot)

    def _seconds(self) -> dict[SnapshotId, float]:
        """How long it takes to make each network again from the one before it."""
        origins = {snapshot: self.origin(snapshot) for snapshot in self._sizes}
        return {
            snapshot: record.outcome.cost.wall_seconds if record is not None and record.outcome is not None else 0.0
            for snapshot, record in origins.items()
        }


def _was_restarted() -> bool:
    """Whether this process is an actor that Ray has made anew after its process died."""
    if not ray.is_initialized() or (context := ray.get_runtime_context()).get_actor_id() is None:
        return False
    return bool(context.was_current_actor_reconstructed)


def excess(
    sizes: dict[SnapshotId, int], seconds: dict[SnapshotId, float], needed: Collection[SnapshotId], budget: float
) -> list[SnapshotId]:
    """The networks to drop so that the rest fits into the budget: first those that no open trial needs, then those that
    are made again soonest.
    """
    dropped, total = [], sum(sizes.values())
    for snapshot in sorted(sizes, key=lambda snapshot: (snapshot in needed, seconds[snapshot])):
        if total <= budget:
            break
        dropped.append(snapshot)
        total -= sizes[snapshot]
    return dropped


class SharedActionCache:
    """Access to the server from any process of the cluster, which it may be sent to; as `cache.actions.ActionCache`.

    An action record never changes once it is told, so those that were asked for are kept at hand.

    Attributes:
        server: the actor.
        folder: on storage that all nodes see.
    """

    def __init__(self, server: Any, folder: StoragePath) -> None:
        self.server, self.folder = server, folder
        self._files, self._fault_log = _networks(folder), FaultLog.of(folder.parent)
        self._known: OrderedDict[Key, ActionRecord] = OrderedDict()
        self._owner = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedActionCache, (self.server, self.folder)

    @classmethod
    @contextmanager
    def open(cls, folder: StoragePath, budget: Budget) -> Iterator[SharedActionCache]:
        """A server beside the driver, which goes on with what is in the folder; it ends with the block."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        server: Any = ray.remote(ActionCacheServer).options(**options).remote(folder, budget)
        try:
            yield cls(server, folder)
        finally:
            ray.kill(server)

    def work_for(self, owner: str) -> None:
        """From now on this process claims in that name."""
        if not self._owner:
            threading.Thread(target=self._give_signs, name="claims", daemon=True).start()
        self._owner = owner

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        key = key_of(snapshot, action)
        if key in self._known:
            return self._known[key]
        answer: Answer = ray.get(self.server.ask.remote(snapshot, action, self._owner))
        if isinstance(answer, ActionRecord):
            self._remember(answer)
        return answer

    def tell(self, record: ActionRecord, content: Snapshot | None) -> None:
        if content is not None:
            self._files.save(content)  # first: whoever hears of the record may ask for the network
        fetch(self.server.tell.remote(record))
        if content is not None:
            self._register(content)

    def keep(self, content: Snapshot) -> None:
        self._files.save(content)
        self._register(content)

    def _register(self, content: Snapshot) -> None:
        """Tell the server of a network, after its record, by which the server knows that nobody can need it yet."""
        size = sum(tensor.nbytes for tensor in content.tensors.values())
        ray.get(self.server.keep.remote(content.id, size, [ray.put(content)]))

    def release(self, owner: str = "") -> None:
        """This process's claims end, or those of another that is no more."""
        ray.get(self.server.release.remote(owner or self._owner))

    def records(self, since: int) -> tuple[ActionRecord, ...]:
        records: tuple[ActionRecord, ...] = ray.get(self.server.records.remote(since))
        return records

    def keep_only(self, needed: Collection[SnapshotId], known: int) -> None:
        """As the server's; does not wait for it."""
        self.server.keep_only.remote(needed, known)

    def origin(self, snapshot: SnapshotId) -> ActionRecord | None:
        record: ActionRecord | None = ray.get(self.server.origin.remote(snapshot))
        return record

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network of a snapshot: from memory, else from storage, else None."""
        content: Snapshot | None = _held(self.server, snapshot) or self._files.load(snapshot)
        if content is None and self._files.holds(snapshot):
            self._fault_log.note("damaged file", f"network {snapshot}")
            self._files.remove(snapshot)
        return content

    def is_taken(self, key: Key) -> bool:
        """Whether somebody is at work on it."""
        return bool(ray.get(self.server.is_taken.remote(key)))

    def _remember(self, record: ActionRecord) -> None:
        self._known[key_of(record.snapshot, record.action)] = record
        if len(self._known) > _KNOWN_AT_HAND:
            self._known.popitem(last=False)

    def _give_signs(self) -> None:
        """Renew the claims of this process as long as it lives, however long a fine-tune takes."""
        while True:
            threading.Event().wait(LEASE_SECONDS / _SIGNS_PER_LEASE)
            self.server.renew.remote(self._owner)


class RemoteTeacherCache:
    """One worker's access to the teacher's answers; as `cache.teacher.TeacherCache`."""

    def __init__(self, shared: SharedActionCache) -> None:
        self._server, self._own = shared.server, LocalTeacherCache()

    def get(self, key: str) -> TeacherAnswers | None:
        own = self._own.get(key)
        if own is not None:
            return own
        answers: TeacherAnswers | None = _held(self._server, key)
        if answers is not None:
            self._own.put(key, answers)
        return answers

    def put(self, key: str, answers: TeacherAnswers) -> None:
        self._own.put(key, answers)
        self._server.hold.remote(key, answers.nbytes, [ray.put(answers)])


def _held(server: Any, name: str) -> Any:
    """What the server holds of that name; None where it does not, or where that went with a node."""
    reference = ray.get(server.held.remote(name))
    if reference is None:
        return None
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None
