"""Starting or joining Ray, quietly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from ice_ray.errors import UserError


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
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def cluster_cpus() -> float:
    """Logical CPUs of the whole cluster."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def cluster_gpus() -> float:
    """Logical GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def require(what: str, cpus: float, gpus: float, times: int = 1) -> None:
    """Check that some node can serve a process, and the cluster all of them.

    Raises:
        UserError: with what was asked for and what is there.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes)
    if not fits or cluster_cpus() < cpus * times or cluster_gpus() < gpus * times:
        raise UserError(
            f"{what} asks for {times} x ({cpus:g} CPUs, {gpus:g} GPUs); the cluster has {cluster_cpus():g} CPUs and "
            f"{cluster_gpus():g} GPUs on {len(nodes)} node(s)"
        )
