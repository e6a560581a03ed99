"""What is to be left of a network: the target of `--target`, and the ratio that has been found for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ice_ray.errors import UserError

Quantity = Literal["macs", "params", "latency"]


@dataclass(frozen=True)
class Target:
    """What is to be left: a share of the dense network's multiply-adds, parameters or latency, inside (0, 1)."""

    quantity: Quantity
    share: float


@dataclass(frozen=True)
class Found:
    """The ratio that reaches a target, and the share it really leaves."""

    ratio: float
    share: float


def parse_target(text: str) -> Target:
    """A target as the command line has it.

    Raises:
        UserError: it is none.

    >>> parse_target("macs=0.5")
    Target(quantity='macs', share=0.5)
    """
    quantity, _, share = text.partition("=")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if quantity not in get_args(Quantity) or not 0 < value < 1:
        raise UserError(f"target '{text}' must be macs=, params= or latency= with a share inside (0, 1), as macs=0.5")
    return Target(quantity, value)  # type: ignore[arg-type]
