"""Starting or joining Ray, quietly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from ice_ray.errors import RunError, TrialFailure, UserError


@contextmanager
def ray_session(verbose: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as submitted jobs find it), or start one on this machine.

    One that was started here is shut down at the end.
    """
    mine = not ray.is_initialized()
    if mine:
        level = logging.INFO if verbose else logging.ERROR
        ray.init(logging_level=level, log_to_driver=verbose)
        for name in ("ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)
        # At the end it lists every trial of which a process died once, though it went on and ended well.
        logging.getLogger("ray.tune.tune").setLevel(logging.INFO if verbose else logging.CRITICAL)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def fetch(reference: Any) -> Any:
    """A task's result; a fault that it names in words comes as that fault, not as a remote traceback.

    Raises:
        UserError, RunError, TrialFailure: as the task raised it.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (UserError, RunError, TrialFailure)):
            raise type(error.cause)(*error.cause.args) from error
        raise


def cluster_cpus() -> float:
    """Logical CPUs of the whole cluster."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def cluster_gpus() -> float:
    """Logical GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def placements(cpus: float, gpus: float) -> int:
    """How many processes of that size the cluster's nodes can hold together."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    by_cpu = [int(node.get("CPU", 0) / cpus) for node in nodes]
    by_gpu = [int(node.get("GPU", 0) / gpus) if gpus else count for node, count in zip(nodes, by_cpu, strict=True)]
    return sum(min(pair) for pair in zip(by_cpu, by_gpu, strict=True))


def require(what: str, cpus: float, gpus: float, times: int = 1) -> None:
    """Check that the cluster's nodes can hold `times` processes of that size.

    Raises:
        UserError: with what was asked for and what is there.
    """
    if placements(cpus, gpus) < times:
        raise UserError(
            f"{what} asks for {times} x ({cpus:g} CPUs, {gpus:g} GPUs); the cluster has {cluster_cpus():g} CPUs and "
            f"{cluster_gpus():g} GPUs on {len(ray.nodes())} node(s), room for {placements(cpus, gpus)}"
        )
