"""Freed memory stays with the process, so that the next tensor need not have it cleared by the kernel again.

The C library of Linux (glibc) gives every block of more than 32 MiB back to the kernel as soon as it is freed, and asks
for it again, page by page and cleared, for the next one: a network's activations are such blocks, layer after layer.
On a virtual machine that can take longer than the arithmetic (findings/torch-cpu-blocks-above-32-mib.sh measures it).
What is computed stays the same.
"""

from __future__ import annotations

import ctypes
import os
import platform

# Of malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_MOST = 2**31 - 1
_USERS_OWN = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let this process keep up to 2 GiB of freed memory at the end of what it holds, and take no block apart from it;
    what the user has set of the kind stays. Elsewhere than with glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _USERS_OWN):
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _MOST)
