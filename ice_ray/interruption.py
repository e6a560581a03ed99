"""Ending what the main thread is at, from a thread that has found out why it must end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNAL = signal.SIGUSR2
"""Not SIGINT: a job that a script starts in the background ignores that."""


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, `interrupt` raises a KeyboardInterrupt in it, which Tune, too, lets through. Only the main
    thread's block is interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(_SIGNAL, signal.default_int_handler)
    try:
        yield
    finally:
        # One that is still on its way must not end the process, as it would by default.
        signal.signal(_SIGNAL, signal.SIG_IGN if before == signal.SIG_DFL else before)


def interrupt() -> None:
    """End the block that is interruptible, if there is one, out of its sleep if it sleeps."""
    main = threading.main_thread().ident
    if main is not None and signal.getsignal(_SIGNAL) is signal.default_int_handler:
        signal.pthread_kill(main, _SIGNAL)
