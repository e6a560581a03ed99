"""What all trials of a search remember together: one actor knows, the object store and the run's storage keep."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ice_ray.address import Place
from ice_ray.cluster.session import fetch
from ice_ray.cluster.survived import Survived
from ice_ray.engine.actions import Action, SnapshotId
from ice_ray.engine.deed_log import DeedLog
from ice_ray.engine.memory import Answer, Deed, Key, MemoryIndex, key_of
from ice_ray.engine.network_files import NetworkFiles
from ice_ray.engine.snapshots import Snapshot
from ice_ray.training.lessons import Lesson, LocalLessons

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


def deed_log(folder: Place) -> DeedLog:
    """What has been carried out in the search whose storage is `folder`."""
    return DeedLog(folder / "deeds.jsonl")


def clear_networks(folder: Place) -> None:
    """Drop all that were shared: nothing goes on from there."""
    _networks(folder).clear()


def _networks(folder: Place) -> NetworkFiles:
    return NetworkFiles(folder / "networks")


class Keeper:
    """The one process that knows what has been done and who is at what. Started again after a crash it knows what
    its log holds; claims are lost then, so the worst is that something is done twice.
    """

    def __init__(self, folder: Place, budget: Budget) -> None:
        self._log, self._files, self._budget = deed_log(folder), _networks(folder), budget
        self._survived = Survived.of(folder.parent)
        self._index = MemoryIndex(LEASE_SECONDS)
        for deed in self._log.load():
            self._index.tell(deed)
        self._sizes, self._needed = self._files.sizes(), set[SnapshotId]()
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        if _was_restarted():
            self._survived.note("memory restart")

    def ask(self, snapshot: SnapshotId, action: Action, owner: str) -> Answer:
        """As `MemoryIndex.ask`."""
        return self._index.ask(snapshot, action, owner)

    def tell(self, deed: Deed) -> None:
        """Keep a deed."""
        if self._index.known(key_of(deed.snapshot, deed.action)) is None:
            self._log.append(deed)  # first: what has been told must outlive this process
            self._survived.note_retries()
        self._index.tell(deed)

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
        """Keep a network or a lesson in memory, as long as its worker lives; what was put there first goes first."""
        self._held.pop(name, None)
        if size <= self._budget.memory:
            self._held[name] = content[0], size
        while sum(size for _, size in self._held.values()) > self._budget.memory:
            self._held.popitem(last=False)

    def held(self, name: str) -> Any:
        """A reference to the network of a snapshot or the lesson of a key; None where memory does not hold it."""
        return self._held.get(name, (None,))[0]

    def origin(self, snapshot: SnapshotId) -> Deed | None:
        """As `MemoryIndex.origin`."""
        return self._index.origin(snapshot)

    def news(self, since: int) -> tuple[Deed, ...]:
        """The deeds from the `since`-th on."""
        return self._index.deeds(since)

    def is_taken(self, key: Key) -> bool:
        """Whether somebody is at work on it."""
        return self._index.is_taken(key)

    def renew(self, owner: str) -> None:
        """As `MemoryIndex.renew`."""
        self._index.renew(owner)

    def release(self, owner: str) -> None:
        """As `MemoryIndex.release`."""
        self._index.release(owner)

    def keep_only(self, needed: Collection[SnapshotId], known: int) -> None:
        """Drop the networks that nobody needs, as one sees it who knows the first `known` deeds."""
        self._needed = set(needed)
        newer = {deed.outcome.snapshot for deed in self._index.deeds(known) if deed.outcome is not None}
        self._drop(set(self._sizes) - set(needed) - newer)

    def _drop(self, snapshots: Collection[SnapshotId]) -> None:
        for snapshot in snapshots:
            self._held.pop(snapshot, None)
            self._sizes.pop(snapshot, None)
            self._files.remove(snapshot)

    def _seconds(self) -> dict[SnapshotId, float]:
        """What making each network again would take, from the one before it."""
        origins = {snapshot: self._index.origin(snapshot) for snapshot in self._sizes}
        return {
            snapshot: deed.outcome.cost.wall_seconds if deed is not None and deed.outcome is not None else 0.0
            for snapshot, deed in origins.items()
        }


def _was_restarted() -> bool:
    """Whether this process is an actor that Ray has made anew after its process died."""
    if not ray.is_initialized() or (context := ray.get_runtime_context()).get_actor_id() is None:
        return False
    return bool(context.was_current_actor_reconstructed)


def excess(
    sizes: dict[SnapshotId, int], seconds: dict[SnapshotId, float], needed: Collection[SnapshotId], budget: float
) -> list[SnapshotId]:
    """What is to go so that the rest fits into the budget: first what no open trial needs, then what is made again
    soonest.
    """
    dropped, total = [], sum(sizes.values())
    for snapshot in sorted(sizes, key=lambda snapshot: (snapshot in needed, seconds[snapshot])):
        if total <= budget:
            break
        dropped.append(snapshot)
        total -= sizes[snapshot]
    return dropped


@dataclass(frozen=True)
class SharedMemory:
    """A handle of the keeper, which any process of the cluster may have.

    Attributes:
        folder: on storage that all nodes see.
    """

    keeper: Any
    folder: Place

    @classmethod
    @contextmanager
    def open(cls, folder: Place, budget: Budget) -> Iterator[SharedMemory]:
        """A keeper beside the driver, which goes on with what is in the folder; it ends with the block."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        keeper: Any = ray.remote(Keeper).options(**options).remote(folder, budget)
        try:
            yield cls(keeper, folder)
        finally:
            ray.kill(keeper)


class RemoteMemory:
    """One worker's access to the keeper; as `engine.memory.Memory`.

    A deed never changes once it is told, so those that were asked for are kept at hand.
    """

    def __init__(self, shared: SharedMemory) -> None:
        self._keeper, self._files = shared.keeper, _networks(shared.folder)
        self._survived = Survived.of(shared.folder.parent)
        self._known: OrderedDict[Key, Deed] = OrderedDict()
        self._owner = ""
        threading.Thread(target=self._give_signs, name="claims", daemon=True).start()

    def work_for(self, owner: str) -> None:
        """From now on this worker claims in that name."""
        self._owner = owner

    def ask(self, snapshot: SnapshotId, action: Action) -> Answer:
        """As `MemoryIndex.ask`."""
        key = key_of(snapshot, action)
        if key in self._known:
            return self._known[key]
        answer: Answer = ray.get(self._keeper.ask.remote(snapshot, action, self._owner))
        if isinstance(answer, Deed):
            self._remember(answer)
        return answer

    def tell(self, deed: Deed, content: Snapshot | None) -> None:
        """The network goes to storage first: whoever hears of the deed may ask for it."""
        if content is not None:
            self._files.save(content)
        fetch(self._keeper.tell.remote(deed))
        if content is not None:
            self._register(content)

    def keep(self, content: Snapshot) -> None:
        """Keep a network that had been forgotten and was made again."""
        self._files.save(content)
        self._register(content)

    def _register(self, content: Snapshot) -> None:
        """After its deed: by that the keeper knows a network that is too new for anyone to need yet."""
        size = sum(tensor.nbytes for tensor in content.tensors.values())
        ray.get(self._keeper.keep.remote(content.id, size, [ray.put(content)]))

    def release(self) -> None:
        """This worker's claims end."""
        ray.get(self._keeper.release.remote(self._owner))

    def origin(self, snapshot: SnapshotId) -> Deed | None:
        """The deed that led to a snapshot."""
        deed: Deed | None = ray.get(self._keeper.origin.remote(snapshot))
        return deed

    def content(self, snapshot: SnapshotId) -> Snapshot | None:
        """The network of a snapshot: from memory, else from storage, else None."""
        content: Snapshot | None = _held(self._keeper, snapshot) or self._files.load(snapshot)
        if content is None and self._files.holds(snapshot):
            self._survived.note("damaged file", f"network {snapshot}")
            self._files.remove(snapshot)
        return content

    def is_taken(self, key: Key) -> bool:
        """Whether somebody is at work on it."""
        return bool(ray.get(self._keeper.is_taken.remote(key)))

    def _remember(self, deed: Deed) -> None:
        self._known[key_of(deed.snapshot, deed.action)] = deed
        if len(self._known) > _KNOWN_AT_HAND:
            self._known.popitem(last=False)

    def _give_signs(self) -> None:
        """Claims hold as long as this process lives, however long a fine-tune takes."""
        while True:
            threading.Event().wait(LEASE_SECONDS / _SIGNS_PER_LEASE)
            self._keeper.renew.remote(self._owner)


class RemoteLessons:
    """One worker's access to the teacher's answers; as `training.lessons.LessonBook`."""

    def __init__(self, shared: SharedMemory) -> None:
        self._keeper, self._own = shared.keeper, LocalLessons()

    def get(self, key: str) -> Lesson | None:
        """The lesson of that key: this worker's, or another's."""
        own = self._own.get(key)
        if own is not None:
            return own
        lesson: Lesson | None = _held(self._keeper, key)
        if lesson is not None:
            self._own.put(key, lesson)
        return lesson

    def put(self, key: str, lesson: Lesson) -> None:
        """Keep a lesson, for all."""
        self._own.put(key, lesson)
        self._keeper.hold.remote(key, lesson.nbytes, [ray.put(lesson)])


def _held(keeper: Any, name: str) -> Any:
    """What the keeper holds of that name; None where it does not, or where that went with a node."""
    reference = ray.get(keeper.held.remote(name))
    if reference is None:
        return None
    try:
        return ray.get(reference)
    except ray.exceptions.RayError:
        return None
