"""Starting or joining Ray, quietly, and in words where it does not start."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._private.utils import read_ray_address

from ice_ray.cluster.faults import cause_of
from ice_ray.errors import RunError, UserError, told
from ice_ray.invocation import submitted_environment

# Tune tells of every trial whose process died, with a traceback, though it goes on; and of its own state, with which
# nothing of ours goes on. What ends a job is raised, too.
_QUIET = {"ray.tune": logging.CRITICAL, "ray.train": logging.CRITICAL, "ray.data": logging.ERROR}
_ANSWER_SECONDS = 10.0
_TOKEN = "its token in ~/.ray/auth_token or RAY_AUTH_TOKEN"
_ADDRESS = "give HOST:PORT (`ray start` prints it; usually port 6379), auto, or local for a Ray of this job's own"


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


def start_ray(verbose: bool) -> None:
    """Join the cluster that RAY_ADDRESS names, or that runs here, or start one.

    Raises:
        UserError: the address is none, or nobody answers there, or not to this process.
        RunError: Ray does not start on this machine.
    """
    joined = _check_address()
    with _held_back(verbose) as heard:
        try:
            ray.init(
                logging_level=logging.INFO if verbose else logging.ERROR,
                log_to_driver=verbose,
                runtime_env=_same_place() if joined else None,
            )
        except Exception as error:  # Ray's, and the system's, of many kinds
            with suppress(Exception):
                ray.shutdown()
            raise _why(error, joined, heard()) from error


def _check_address() -> str:
    """The cluster that will be joined, empty where one will be started.

    Ray would wait for minutes, or for ever, for a cluster that is no more.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    if "://" in given:
        raise UserError(
            f"RAY_ADDRESS is '{given}': submit the job there (`ray job submit`), or name the cluster as HOST:PORT"
        )
    address = given or read_ray_address()  # as `ray start` left it
    if address in (None, "", "local"):
        return ""
    if address == "auto":
        return "auto"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"RAY_ADDRESS is '{address}', which is no address of a cluster: {_ADDRESS}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:
        which = "that RAY_ADDRESS names" if given else "last started here"
        mend = "" if given else ": `ray stop` forgets it, RAY_ADDRESS=local does without"
        said = getattr(error, "strerror", None) or error
        raise UserError(f"the cluster {which}, {address}, does not answer ({said}){mend}") from error
    return address


def _same_place() -> dict[str, Any] | None:
    """For the processes of a cluster that others have started: work where this one does, and find the same modules.

    Where a job was submitted with its working directory, Ray sees to that; on a node that has no such folder, a process
    stays where it is.
    """
    if {"working_dir", "worker_process_setup_hook"} & set(submitted_environment()):
        return None
    return {"worker_process_setup_hook": _going_to(str(Path.cwd()), [path for path in sys.path if path])}


def _going_to(folder: str, paths: list[str]) -> Callable[[], None]:
    def go() -> None:  # sent as it is: what it needs it brings
        import os
        import sys

        if os.path.isdir(folder):  # noqa: PTH112
            os.chdir(folder)
        sys.path.extend(path for path in paths if path not in sys.path and os.path.exists(path))  # noqa: PTH110

    return go


@contextmanager
def _held_back(verbose: bool) -> Iterator[Callable[[], str]]:
    """Keep what Ray writes to standard error from the terminal; the function gives what it was, so far."""
    if verbose or sys.stderr is None:  # a shell has closed it (2>&-)
        yield lambda: ""
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file, os.fdopen(os.dup(2), "w") as before:
        watched = not faulthandler.is_enabled()
        if watched:
            faulthandler.enable(before)  # should Ray abort the process, that must not be silent
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
        finally:
            os.dup2(before.fileno(), 2)
            if watched:
                faulthandler.disable()


def _why(error: Exception, joined: str, heard: str) -> UserError | RunError:
    said = cause_of(error)
    if isinstance(error, ray.exceptions.AuthenticationError) or "InvalidAuthToken" in heard + said:
        return UserError(_about_the_token(joined))
    if "AF_UNIX" in said:
        place = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
        return UserError(
            f"Ray cannot have its sockets below '{place}', a path too long for them: set a shorter RAY_TMPDIR"
        )
    if "Version mismatch" in said:
        words = said.partition("Version mismatch: ")[2]
        return UserError(f"another Ray or Python runs the cluster than this job: {words}; install the same for both")
    if joined == "auto" and isinstance(error, ConnectionError):
        return UserError(f"RAY_ADDRESS is 'auto' and no cluster runs on this machine ({said}): {_ADDRESS}")
    if joined and isinstance(error, (ConnectionError, TimeoutError)):
        return UserError(f"what answers at {joined} is no Ray cluster that this process can join ({said}): {_ADDRESS}")
    return RunError(f"Ray cannot {f'join {joined}' if joined else 'start here'} ({said})")


def _about_the_token(joined: str) -> str:
    if not joined:
        return (
            "RAY_AUTH_MODE=token needs a token: `ray get-auth-token --generate` makes one, or set RAY_AUTH_TOKEN; a "
            "Ray of this job's own needs none (RAY_AUTH_MODE=disabled)"
        )
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return f"the cluster at {joined} wants a token: set RAY_AUTH_MODE=token, and have {_TOKEN}"
    return f"the cluster at {joined} does not take this token, or there is none: have {_TOKEN}"
