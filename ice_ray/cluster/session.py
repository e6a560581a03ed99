"""Starting or joining Ray, quietly."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray._private.utils import read_ray_address

from ice_ray.errors import RunError, TrialFailure, UserError

_ANSWER_SECONDS = 10.0


@contextmanager
def ray_session(verbose: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names (as submitted jobs find it), or start one on this machine.

    One that was started here is shut down at the end.

    Raises:
        UserError: nobody answers where a cluster is said to be.
    """
    mine = not ray.is_initialized()
    if mine:
        _check_address()
        level = logging.INFO if verbose else logging.ERROR
        ray.init(logging_level=level, log_to_driver=verbose)
        if threading.current_thread() is threading.main_thread():
            # `ray job stop` sends it, and kills three seconds later: end as for Ctrl-C, Ray's own handler just exits.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        for name in ("ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)
        # Ours is the state that a search goes on with: of Tune's own, what cannot be written is nobody's loss.
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.INFO if verbose else logging.CRITICAL)
        # At the end it lists every trial of which a process died once, though it went on and ended well.
        logging.getLogger("ray.tune.tune").setLevel(logging.INFO if verbose else logging.CRITICAL)
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _check_address() -> None:
    """Ray would wait for minutes, or for ever, for a cluster that is no more."""
    given = os.environ.get("RAY_ADDRESS", "")
    if "://" in given:
        raise UserError(
            f"RAY_ADDRESS is '{given}': submit the job there (`ray job submit`), or name the cluster as HOST:PORT"
        )
    address = given or read_ray_address()  # as `ray start` left it
    if address in (None, "local", "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        which = "that RAY_ADDRESS names" if given else "last started here"
        mend = "" if given else ": `ray stop` forgets it, RAY_ADDRESS=local does without"
        raise UserError(f"the cluster {which}, {address}, does not answer ({error.strerror or error}){mend}") from error


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
