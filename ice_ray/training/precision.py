"""Number types: float32 throughout, or half-width floats for the arithmetic where the device is made for them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import get_args

import torch

from ice_ray.errors import UserError
from ice_ray.training.config import Precision, PrecisionChoice

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(choice: PrecisionChoice, device: torch.device) -> Precision:
    """`auto` is bf16 where the device computes it in hardware, else fp32.

    Raises:
        UserError: no such precision, or fp16 away from a GPU; its losses are scaled for a GPU's range of exponents.
    """
    if choice not in get_args(PrecisionChoice):
        raise UserError(f"precision '{choice}' is none of {', '.join(get_args(PrecisionChoice))}")
    if choice == "fp16" and device.type != "cuda":
        raise UserError("precision fp16 is for GPUs: take bf16 or fp32 on a CPU")
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: weights stay float32, convolutions and matrix products run in `precision`."""
    return torch.autocast(device.type, _TYPES[precision], enabled=precision != "fp32")


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
