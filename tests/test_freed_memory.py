"""Freed memory is used again, without the kernel."""

import os
import platform
import subprocess
import sys

import pytest

SIZE, TIMES = 64 * 2**20, 20
PROGRAM = f"""
import resource
import torch
import ice_ray

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.ones({SIZE // 4})
before = pages()
for _ in range({TIMES}):
    torch.ones({SIZE // 4})
print((pages() - before) * resource.getpagesize())
"""


def cleared(**environment: str) -> int:
    """Bytes that the kernel hands to a process that has and frees a tensor time and again."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    words = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(words, env=own | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library does as it likes")
def test_a_tensor_gets_what_the_one_before_has_freed_unless_the_user_has_said_otherwise():
    assert cleared() < TIMES * SIZE / 2  # the first few find a hole too small
    assert cleared(MALLOC_TRIM_THRESHOLD_="131072") >= TIMES * SIZE
