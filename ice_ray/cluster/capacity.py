"""How many processes the cluster can hold, now or once its autoscaler has added nodes; waiting for these."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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

from ice_ray.errors import RunError, UserError

# Where `ray up` puts the cluster's file on the head, on which jobs run.
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"
# Without an autoscaler the same report is made, of types that are called after the nodes.
_REPORT_ONLY = "node_"
_POLL_SECONDS = 1.0
_MOST_ASKED = 1000


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
    """The types of the nodes that there are, as the cluster's monitor reports them."""
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


@dataclass(frozen=True)
class Request:
    """Processes of one size that must run at once.

    Attributes:
        what: for people, with the options that ask for it.
    """

    what: str
    cpus: float
    gpus: float
    times: int = 1

    def __str__(self) -> str:
        return f"{self.what} asks for {self.times} x ({self.cpus:g} CPUs, {self.gpus:g} GPUs)"


def cluster_cpus() -> float:
    """Logical CPUs of the whole cluster."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def cluster_gpus() -> float:
    """Logical GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def has_gpus() -> bool:
    """Whether there are GPUs, or would be if they were asked for."""
    if cluster_gpus() >= 1:
        return True
    autoscaler = find_autoscaler(10.0 if types_are_declared() else 0.0)
    return autoscaler is not None and autoscaler.most_gpus() >= 1


def placements(cpus: float, gpus: float) -> int:
    """How many processes of that size the cluster's nodes can hold together."""
    return sum(holds(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def sharers(cpus: float, gpus: float) -> int:
    """How many processes of that size may be on one device at most: on a GPU, or without one on the CPUs of a node."""
    found = [1]
    for node in ray.nodes():
        if node["Alive"]:
            devices = int(node["Resources"].get("GPU", 0)) if gpus else 1
            found.append(math.ceil(holds(node["Resources"], cpus, gpus) / max(1, devices)))
    return max(found)


def check_possible(request: Request) -> None:
    """Check that the cluster can serve a request, or could once its autoscaler has added nodes.

    Raises:
        UserError: with what was asked for and what there is, or could be.
    """
    if placements(request.cpus, request.gpus) >= request.times:
        return
    autoscaler = find_autoscaler()
    if autoscaler is None:
        raise UserError(f"{request}; {_there_is(request)}")
    most = autoscaler.most_placements(request.cpus, request.gpus)
    if most is not None and most < request.times:
        raise UserError(f"{request}; {_there_is(request)}, and the node types' maxima allow {most}")


def provide(request: Request, minutes: float, say: Callable[[str], None]) -> None:
    """See that the cluster's nodes can hold a request; where an autoscaler must add some first, ask and wait for it.

    Args:
        minutes: to wait at most.
        say: told what is waited for.

    Raises:
        UserError: the cluster could never serve it.
        RunError: the nodes did not come in time.
    """
    check_possible(request)
    if placements(request.cpus, request.gpus) >= request.times:
        return
    say(f"{request}; {_there_is(request)}: waiting for the autoscaler, up to {minutes:g} minutes")
    with wanted(request):
        deadline = time.monotonic() + 60 * minutes
        while placements(request.cpus, request.gpus) < request.times:
            if time.monotonic() > deadline:
                raise RunError(
                    f"{request}; after {minutes:g} minutes (--wait-for-resources) {_there_is(request)}: "
                    "`ray status` on the head says what its autoscaler is at"
                )
            time.sleep(_POLL_SECONDS)


@contextmanager
def wanted(request: Request) -> Iterator[None]:
    """Keep room for a request while the block runs, as far as an autoscaler can add it. Does not wait."""
    autoscaler = find_autoscaler(0.0)
    if autoscaler is None:
        yield
        return
    most = autoscaler.most_placements(request.cpus, request.gpus)
    autoscaler.ask(request.cpus, request.gpus, min(request.times, _MOST_ASKED if most is None else most))
    try:
        yield
    finally:
        autoscaler.ask(request.cpus, request.gpus, 0)


def _there_is(request: Request) -> str:
    alive = sum(node["Alive"] for node in ray.nodes())
    return (
        f"the cluster has {cluster_cpus():g} CPUs and {cluster_gpus():g} GPUs on {alive} node(s), room for "
        f"{placements(request.cpus, request.gpus)}"
    )
