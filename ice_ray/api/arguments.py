"""What is given by keyword, checked: faults are told in one line that names the argument."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence

import torch

from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.target import Found, Target, objection_to, parse_target, ratio_for
from ice_ray.errors import UserError
from ice_ray.pruning.amounts import Amounts
from ice_ray.training.precision import PrecisionChoice

_MOST_PIXELS = 1 << 16


def whole(name: str, value: object) -> int:
    """A whole number; NumPy's are some too.

    Raises:
        UserError: it is none.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type] # who is no number raises a TypeError
    except TypeError:
        pass
    raise UserError(f"{name}={value!r:.80} must be a whole number")


def device_of(asked: torch.device | str | int | None) -> torch.device:
    """The device that is asked for; else a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked is None else asked)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device={asked!r:.80} is none that torch knows: 'cpu', 'cuda' or 'cuda:0'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={asked!r}: torch finds no GPU here")
    return device


def target_of(target: str | None, ratio: float | None) -> Target | None:
    """What is to be left, where a target says so.

    Raises:
        UserError: it is no target, or a ratio says how much to prune too.
    """
    if target is None:
        return None
    if not isinstance(target, str):
        raise UserError(f"target={target!r:.80} must be words as 'macs=0.5', 'params=0.4' or 'latency=0.6'")
    if ratio is not None:
        raise UserError("ratio and target both say how much to prune: give one of them")
    return parse_target(target)


def found_ratio(
    wanted: Target, network: DenseNetwork, amounts: Amounts, device: torch.device, precision: PrecisionChoice
) -> Found:
    """The ratio that reaches a target. Warns the caller's caller where it leaves some layers next to nothing."""
    found = ratio_for(wanted, network, amounts, device, precision)
    if (objection := objection_to(found, wanted, network, amounts, device, precision)) is not None:
        warnings.warn(objection, stacklevel=3)
    return found


def image_shape_of(given: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W).

    Raises:
        UserError: it is none.
    """
    try:
        channels, height, width = (whole("image_shape", size) for size in given)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(
            f"image_shape={given!r:.80} must be three whole numbers, channels, height and width: (3, 224, 224)"
        ) from error
    if not all(0 < size <= _MOST_PIXELS for size in (channels, height, width)):
        raise UserError(f"image_shape={tuple(given)} must be of numbers from 1 to {_MOST_PIXELS}")
    return channels, height, width
