"""A line every minute while something is worked out that says nothing by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ice_ray.observe.terminal import say

SECONDS = 60.0


@contextmanager
def told_of(what: str, seconds: float = SECONDS) -> Iterator[None]:
    """While the block runs, say after every so many seconds that it does."""
    ended = threading.Event()

    def tell() -> None:
        passed = seconds
        while not ended.wait(seconds):
            say(f"{what}: {passed:g} s so far")
            passed += seconds

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
