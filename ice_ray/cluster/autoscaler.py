"""The cluster's autoscaler, where it has one: what it could add, and asking it to."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get

# Where `ray up` puts the cluster's file on the head, on which jobs run.
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"
# Without an autoscaler the same report is made, of types that are called after the nodes.
_REPORT_ONLY = "node_"
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class NodeType:
    """A kind of node that the autoscaler may add.

    Attributes:
        resources: of one node, by Ray's names.
        most: how many there may be.
    """

    resources: Mapping[str, float]
    most: int

    def holds(self, cpus: float, gpus: float) -> int:
        """How many processes of that size one node has room for."""
        return holds(self.resources, cpus, gpus)


@dataclass(frozen=True)
class Autoscaler:
    """An autoscaler.

    Attributes:
        types: what it may add; None where that cannot be known from here.
    """

    types: tuple[NodeType, ...] | None

    def most_placements(self, cpus: float, gpus: float) -> int | None:
        """How many processes of that size all nodes together could hold; None where that cannot be known."""
        return None if self.types is None else sum(kind.holds(cpus, gpus) * kind.most for kind in self.types)

    def most_gpus(self) -> float:
        """GPUs that there could be, as far as that can be known."""
        return sum(kind.resources.get("GPU", 0) * kind.most for kind in self.types or ())

    @staticmethod
    def ask(cpus: float, gpus: float, times: int) -> None:
        """Ask for room for `times` processes of that size, in place of what was asked for before; 0 asks for none."""
        size = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        request_resources(bundles=[size] * times)


def holds(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many processes of that size a node of those resources has room for."""
    by_cpu = int(resources.get("CPU", 0) / cpus)
    return min(by_cpu, int(resources.get("GPU", 0) / gpus)) if gpus else by_cpu


def find_autoscaler(patience: float = 10.0) -> Autoscaler | None:
    """The cluster's autoscaler; None where nodes come and go by hand.

    Args:
        patience: seconds to wait for its first report, where the cluster has only just been started.
    """
    deadline = time.monotonic() + patience
    while not (types := _reported_types()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if not types or all(name.startswith(_REPORT_ONLY) for name in types):
        return None
    return Autoscaler(declared_types())


def _reported_types() -> set[str]:
    """The types of the nodes that there are, as whoever watches over them reports it."""
    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        return {node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)}
    report = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}").get("autoscaler_report") or {}
    return {*(report.get("node_type_mapping") or {}).values(), *(report.get("active_nodes") or {})}


def types_are_declared() -> bool:
    """Whether this is the head of a cluster that `ray up` made."""
    return Path(BOOTSTRAP_CONFIG).expanduser().is_file()


def declared_types() -> tuple[NodeType, ...] | None:
    """From the file of `ray up`, where this is its head."""
    path = Path(BOOTSTRAP_CONFIG).expanduser()
    if not path.is_file():
        return None
    try:
        config: dict[str, Any] = yaml.safe_load(path.read_text())
        limit = int(config["max_workers"])
        head = config.get("head_node_type")
        return tuple(
            NodeType(kind.get("resources", {}), 1 if name == head else min(limit, int(kind.get("max_workers", 0))))
            for name, kind in config["available_node_types"].items()
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):  # it is not ours: then nothing is known
        return None
