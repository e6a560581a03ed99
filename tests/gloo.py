"""Real processes over gloo, for the tests of what several of them do together."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(task: Callable[..., None], size: int, *arguments: Any) -> None:
    """Calls `task(rank, *arguments)` in `size` new processes of one group. What one of them raises, this raises."""
    with tempfile.TemporaryDirectory() as folder:  # they meet at a file: a free port may be another's by then
        mp.spawn(_process, (size, Path(folder) / "meeting", task, arguments), nprocs=size)


def _process(rank: int, size: int, meeting: Path, task: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    task(rank, *arguments)
    dist.destroy_process_group()
    # Python is not shut down: gloo's threads may still be letting go of tensors, and one that needs Python by then
    # ends the process with SIGABRT (torch 2.15.0, about one run in five).
    os._exit(0)
