"""What an action costs on two clocks: wall time, and work (operations over a calibrated speed)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Clock = Literal["wall", "work"]


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, and floating-point operations of convolutions and linear layers over all processes."""

    wall_seconds: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_seconds + other.wall_seconds, self.flops + other.flops)

    def seconds(self, clock: Clock, flops_per_second: float) -> float:
        """Seconds on `clock`; the work clock divides by the speed that was calibrated alone on the device."""
        return self.wall_seconds if clock == "wall" else self.flops / flops_per_second
