"""Work in a forked copy of this process: if the copy dies, this process lives on."""

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
    """Whether torch can compute gradients in this process."""
    try:
        (torch.ones(1, requires_grad=True) * 2).sum().backward()
    except RuntimeError:
        return False
    return True


# Copies can compute gradients only if this process computed some before anything (such as torch's compiler, which timm
# loads) made torch look for devices.
if not torch.cuda.is_available():
    _has_gradients()


class DiedError(Exception):
    """The copy ended without an answer; the text says how."""


class SlowError(DiedError):
    """The copy gave no answer in time, and was killed."""


class LeftUndoneError(Exception):
    """The work raised an exception; the text says what and where."""


def run_forked(work: Callable[[], Any], limit: float) -> Any:
    """What `work` returns, computed on the CPU in a forked copy of this process.

    A copy has at once all that is loaded here, the user's classes too; it computes in one thread, for other threads are
    not copied. The work is done in this process where forking is impossible (no Linux) or unsafe (torch has threads for
    a GPU, or this process is connected to a Ray cluster, whose channels do not survive it).

    Args:
        work: returns what JSON can hold; its changes stay in the copy.
        limit: seconds.

    Raises:
        DiedError: the copy ended by a signal, or by itself.
        SlowError: it took longer than `limit`.
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
    """Whether this process is connected to a Ray cluster: only if it has imported Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _answer(work: Callable[[], Any], writer: int, limit: float) -> NoReturn:
    """In the copy: work, write the answer, and exit without cleanup."""
    try:
        _settle(limit)
        said = _UNABLE if not _has_gradients() else json.dumps(_outcome(work)).encode() + b"\n"
        while said:
            said = said[os.write(writer, said) :]
    finally:
        os._exit(0)


def _settle(limit: float) -> None:
    """Detach the copy from this process's terminal, handlers and threads."""
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silent, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    faulthandler.disable()
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dump
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, signal.SIG_DFL)
    signal.alarm(int(limit) + 60)  # in case the other process is gone by then
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
    """Everything written until the pipe is closed; None after `limit` seconds."""
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
