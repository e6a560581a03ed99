"""Starting or joining Ray, quietly."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from ice_ray.cluster.starting import start_ray
from ice_ray.errors import told

# Tune tells of every trial whose process died, with a traceback, though it goes on; and of its own state, with which
# nothing of ours goes on. What ends a job is raised, too.
_QUIET = {"ray.tune": logging.CRITICAL, "ray.train": logging.CRITICAL, "ray.data": logging.ERROR}


@contextmanager
def ray_session(verbose: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as submitted jobs find it), or start one on this machine.

    One that was started here is shut down at the end.

    Raises:
        UserError: nobody answers where a cluster is said to be, or not to this process.
        RunError: Ray does not start here.
    """
    mine = not ray.is_initialized()
    if mine:
        start_ray(verbose)
        if threading.current_thread() is threading.main_thread():
            # `ray job stop` sends it, and kills three seconds later: end as for Ctrl-C, Ray's own handler just exits.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        for name, quiet in _QUIET.items():
            logging.getLogger(name).setLevel(logging.INFO if verbose else quiet)
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
    with as_told():
        return ray.get(reference)


@contextmanager
def as_told() -> Iterator[None]:
    """A fault in our own words that another process has raised comes out of the block as that, however Ray wraps it.

    Raises:
        UserError, RunError, TrialFailure: as it was raised there.
    """
    try:
        yield
    except Exception as error:  # Ray's kinds are many
        fault = told(error)
        if fault is None or fault is error:
            raise
        raise type(fault)(*fault.args) from error
