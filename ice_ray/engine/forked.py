"""Work in a process apart: a copy of this one, whose death is not this one's."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import torch

from ice_ray.errors import UserError
from ice_ray.models.asking import raised

_UNABLE = b"null\n"


def _has_gradients() -> bool:
    """Whether torch works out gradients in this process."""
    try:
        (torch.ones(1, requires_grad=True) * 2).sum().backward()
    except RuntimeError:
        return False
    return True


# The first gradients of a process decide whether its copies have any. Before anything (torch's compiler, as timm brings
# it) has made torch see devices there are not, they do.
if not torch.cuda.is_available():
    _has_gradients()


class DiedError(Exception):
    """The process ended without an answer; its text says how, for people."""


class SlowError(DiedError):
    """It gave none in time, and was ended."""


class LeftUndoneError(Exception):
    """The work raised something: what, and where."""


def run_forked(work: Callable[[], Any], limit: float) -> Any:
    """What `work` returns, worked out in a process apart on the CPU.

    A copy of this process has all that is loaded here, the user's own classes too, at once; it computes in one thread,
    for those that others have started are not copied. Where no copy can be made (no Linux), or none should be (torch
    has threads for a GPU, or this process is connected to a Ray cluster, whose channels do not outlive that), the work
    is done in this process.

    Args:
        work: returns what JSON has; what it changes here is not changed.
        limit: seconds.

    Raises:
        DiedError: the process ended by a signal, or by itself.
        SlowError: it took longer.
        UserError: raised by the work.
        LeftUndoneError: the work raised another exception.

    >>> run_forked(lambda: [1 + 1], 60)
    [2]
    """
    if sys.platform != "linux" or torch.cuda.is_initialized() or _is_connected():
        return _unpacked(_outcome(work))
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that other threads are not copied is known
        child = os.fork()
    if not child:
        _answer(work, writer, limit)
    os.close(writer)
    try:
        said = _hear(reader, limit)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has ended already, or is of no use any more
        status = os.waitpid(child, 0)[1]
    if said is None:
        raise SlowError(f"it had not ended after {limit:g} seconds")
    if not said.endswith(b"\n"):
        raise DiedError(_how(status))
    if said == _UNABLE:
        return _unpacked(_outcome(work))
    return _unpacked(json.loads(said))


def _is_connected() -> bool:
    """Whether Ray runs here: only one who has imported it can have started it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _answer(work: Callable[[], Any], writer: int, limit: float) -> NoReturn:
    """In the copy: work, answer, and end without a trace."""
    try:
        _settle(limit)
        said = _UNABLE if not _has_gradients() else json.dumps(_outcome(work)).encode() + b"\n"
        while said:
            said = said[os.write(writer, said) :]
    finally:
        os._exit(0)


def _settle(limit: float) -> None:
    """Nothing of the other process's is touched: no terminal, no handlers, no threads that are not there."""
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silent, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    faulthandler.disable()
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nobody looks at what is left of it
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, signal.SIG_DFL)
    signal.alarm(int(limit) + 60)  # should the other process be gone by then
    torch.set_num_threads(1)


def _outcome(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"answer": work()}
    except UserError as error:
        return {"fault": str(error)}
    except Exception as error:
        return {"raised": raised(error)}


def _unpacked(outcome: dict[str, Any]) -> Any:
    if "fault" in outcome:
        raise UserError(outcome["fault"])
    if "raised" in outcome:
        raise LeftUndoneError(outcome["raised"])
    return outcome["answer"]


def _hear(reader: int, limit: float) -> bytes | None:
    """All that is said until the other end is closed; None where that takes too long."""
    end, said = time.monotonic() + limit, b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        part = os.read(reader, 1 << 16)
        if not part:
            return said
        said += part


def _how(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return "the process ended by itself"
    number = os.WTERMSIG(status)
    words = {signal.SIGSEGV: "a segmentation fault", signal.SIGKILL: "most likely because memory did not suffice"}
    name = signal.Signals(number).name
    return f"{name}, {words[signal.Signals(number)]}" if number in words else name
