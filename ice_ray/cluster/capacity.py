"""What the cluster can hold now and what it could: waiting for its autoscaler, or refusing what will never fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from ice_ray.cluster.autoscaler import find_autoscaler, holds, types_are_declared
from ice_ray.errors import RunError, UserError

_POLL_SECONDS = 1.0
_MOST_ASKED = 1000


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
