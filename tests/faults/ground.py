"""A Ray cluster of real processes on this machine: a head where no trial has a place, and nodes that can be lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from ray.cluster_utils import Cluster

_STORE_BYTES = 200 * 2**20
_REFUSED = "trying again in"


class Ground:
    """The cluster.

    Attributes:
        address: of its control store, for drivers.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._nodes = cluster, list[object]()
        self.address = str(cluster.address)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Ground]:
        """A head alone; it ends, with all that was added, with the block."""
        # One thread a process, here as in the runs that all are compared with: bits depend on it.
        with patch.dict(os.environ, OMP_NUM_THREADS="1"):
            head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
            cluster = Cluster(initialize_head=True, head_node_args=head)
            try:
                yield cls(cluster)
            finally:
                cluster.shutdown()

    def have(self, count: int) -> None:
        """See that there are so many nodes, each with room for one trial or worker."""
        while len(self._nodes) < count:
            self.join()
        while len(self._nodes) > count:
            self.lose(self.raylets[-1])

    def join(self) -> int:
        """One more node; returns the process that its workers descend from."""
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES))
        return _raylet(self._nodes[-1])

    def lose(self, raylet: int) -> None:
        """The node of that raylet is gone, with all that ran there."""
        (lost,) = (node for node in self._nodes if _raylet(node) == raylet)
        self._nodes.remove(lost)
        self._cluster.remove_node(lost, allow_graceful=False)

    @property
    def raylets(self) -> list[int]:
        """Of its nodes."""
        return [_raylet(node) for node in self._nodes]

    def refusals(self) -> int:
        """How often a process of the cluster has said that the storage refused it something."""
        logs = Path(self._cluster.head_node.get_session_dir_path()) / "logs"
        return sum(path.read_text(errors="replace").count(_REFUSED) for path in logs.glob("worker-*.err"))


def _raylet(node: object) -> int:
    ((info, *_),) = (infos for kind, infos in node.all_processes.items() if kind == "raylet")  # type: ignore[attr-defined]
    return int(info.process.pid)
