"""What a caller has set for all of torch, and what is calculated with here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual_defaults() -> Iterator[None]:
    """While its block runs, new tensors are float32 on the CPU and gradients can be had, as torch has it at the start.

    Images, weights and generators here are of that kind, whatever the caller has set (`torch.set_default_dtype`,
    `torch.set_default_device`, `torch.inference_mode`), which holds again afterwards. As a decorator, too.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        # Not entered for nothing: beside it every call of torch takes a way through Python.
        is_usual = torch.get_default_device().type == "cpu"
        with torch.inference_mode(False), nullcontext() if is_usual else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)
