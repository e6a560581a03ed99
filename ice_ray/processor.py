"""A processor that promises what it cannot do, told to torch's kernels before they believe it.

Some virtual machines announce Intel AMX (the feature bits are set, the operating system grants it) but hide the shapes
of its tiles. oneDNN, which torch multiplies bfloat16 matrices with, looks at the former only and configures no tile:
the first such product kills the process with an illegal instruction.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path

_TILE_SHAPES = 0x1D  # of Intel's CPUID leaves; its first register is the number of the last palette, 0 where none is
# cpuid, as a C function of the leaf (System V calling convention) that returns the first register:
# push rbx; mov eax, edi; xor ecx, ecx; cpuid; pop rbx; ret
_CPUID = bytes.fromhex("53 89f8 31c9 0fa2 5b c3")


def avoid_unusable_tiles() -> None:
    """Keep oneDNN below AMX where its tiles have no shape; what the user has set stays. In time before torch's first
    product of this process."""
    if announces_tiles() and cpuid(_TILE_SHAPES) == 0:
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")  # all but AMX


def announces_tiles() -> bool:
    """Whether this is a 64-bit Linux machine whose processor has AMX among its features."""
    if platform.machine() != "x86_64":
        return False
    try:
        with Path("/proc/cpuinfo").open() as file:
            return any(line.startswith("flags") and " amx_tile" in line for line in file)
    except OSError:
        return False


def cpuid(leaf: int) -> int | None:
    """The first register (EAX) that the processor answers with; None where a process may not make code of its own."""
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    memory.write(_CPUID)
    place = ctypes.c_char.from_buffer(memory)
    answer = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)(ctypes.addressof(place))
    value: int = answer(leaf)
    del answer, place  # else the memory cannot be closed
    memory.close()
    return value
