"""An executor that repeats no action that any worker has carried out."""

from __future__ import annotations

import time

from ice_ray.cache.actions import ActionCache, ActionRecord, is_kept, key_of
from ice_ray.engine.actions import Action, Outcome, SnapshotId
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import DivergedError, ForgottenError


class TakenError(Exception):
    """Another worker is carrying out the action `key`: try again when it is done."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class CachingExecutor:
    """Looks up an action before it has `executor` carry it out; outcomes and costs are the same either way.

    Nothing is computed, and no network fetched, until an action is asked for that is not in the cache. Several of the
    same root may share a cache.

    Attributes:
        asked, executed: actions so far, and those of them that were carried out here.
    """

    def __init__(self, executor: TorchExecutor, cache: ActionCache) -> None:
        self._executor, self._cache = executor, cache
        self.asked = self.executed = 0

    @property
    def network(self) -> DenseNetwork:
        return self._executor.network

    @property
    def root(self) -> SnapshotId:
        return self._executor.root

    @property
    def validation_images(self) -> int:
        return self._executor.validation_images

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """The outcome of an action, from the cache or carried out now.

        Raises:
            TakenError: another worker is carrying it out.
            TrialFailure: it failed, here or elsewhere.
            ForgottenError: the snapshot's history is not in the cache.
        """
        answer = self._cache.ask(snapshot, action)
        if answer == "taken":
            raise TakenError(key_of(snapshot, action))
        self.asked += 1
        if answer == "granted":
            return self._carry_out(snapshot, action)
        if answer.outcome is None:
            raise DivergedError(answer.failure)
        return answer.outcome

    def _carry_out(self, snapshot: SnapshotId, action: Action) -> Outcome:
        began = time.perf_counter()
        try:
            self._restore(snapshot)
            outcome = self._executor.run(snapshot, action)
            content = self._kept(outcome.snapshot, action)
        except DivergedError as error:
            failed = ActionRecord(snapshot, action, None, str(error), time.perf_counter() - began)
            self._cache.tell(failed, None)  # so it would for everyone
            raise
        except BaseException:
            self._cache.release()
            raise
        self._cache.tell(ActionRecord(snapshot, action, outcome, seconds=time.perf_counter() - began), content)
        self.executed += 1
        return outcome

    def _restore(self, snapshot: SnapshotId) -> None:
        """Make the executor hold a snapshot: from the cache, or made again from the one before it."""
        if self._executor.holds(snapshot):
            return
        content = self._cache.content(snapshot)
        if content is not None:
            self._executor.store.keep_only(())
            self._executor.store.put(content)
            return
        origin = self._cache.origin(snapshot)
        if origin is None:
            raise ForgottenError(f"snapshot {snapshot} is not remembered")
        self._restore(origin.snapshot)
        made = self._executor.run(origin.snapshot, origin.action)
        again = self._kept(made.snapshot, origin.action)
        if again is not None:
            self._cache.keep(again)

    def _kept(self, snapshot: SnapshotId, action: Action) -> Snapshot | None:
        """The network after an action, if such networks are kept. It stays the executor's live one; the store holds no
        other.
        """
        if not is_kept(action):
            return None
        content = self._executor.commit(snapshot)
        self._executor.store.keep_only(())
        return content
