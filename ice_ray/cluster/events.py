"""Events that processes send to the driver while they work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOST = "lost"
"""The kind of event that says that others were lost, with the process that held them."""
_POLL_SECONDS = 0.5


class _Mailbox:
    """Holds events unread, pickled as Ray would send them: who reads them imports what they are made of, torch too."""

    def __init__(self) -> None:
        self._events: list[bytes] = []

    def put(self, event: bytes) -> None:
        self._events.append(event)

    def take(self) -> list[bytes]:
        events, self._events = self._events, []
        return events


class EventChannel:
    """A one-way channel from any process of the cluster to the driver. Needs no CPU of the cluster."""

    def __init__(self) -> None:
        # Beside the driver: with any other node it could go while the job goes on.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        self._mailbox: Any = ray.remote(_Mailbox).options(**options).remote()
        self._is_lost = False

    def send(self, kind: str, content: Any) -> None:
        """Send without waiting; a lost event loses a line of progress, nothing else."""
        self._mailbox.put.remote(cloudpickle.dumps((kind, content)))

    @contextmanager
    def listening(self, receive: Callable[[str, Any], None]) -> Iterator[None]:
        """Call `receive` (from a thread) for every event while the block runs, the last ones at its end."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(_POLL_SECONDS):
                self._deliver(receive)

        thread = threading.Thread(target=loop, name="events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._deliver(receive)

    def _deliver(self, receive: Callable[[str, Any], None]) -> None:
        try:
            events = ray.get(self._mailbox.take.remote())
        except ray.exceptions.RayActorError:  # it died with what it held, and is started again
            if not self._is_lost:
                receive(LOST, None)
            self._is_lost = True
            return
        self._is_lost = False
        for event in events:
            receive(*cloudpickle.loads(event))
