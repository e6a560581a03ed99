"""Learning-rate schedules, a file each. Inside a fine-tune a schedule scales the rate; eq. 1 bounds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ice_ray.training.schedules.constant import constant
from ice_ray.training.schedules.cosine import cosine
from ice_ray.training.schedules.linear import linear

Schedule = Literal["constant", "cosine", "linear"]
SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "linear": linear}
"""Per name: from progress (share of the fine-tune's batches done, in [0, 1)) to the share of the bound."""
