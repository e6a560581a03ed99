"""How a person reads a duration, and the parts of a job's time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_LEAST_SHOWN = 0.05  # seconds: less is zero in a table of tenths
_INSIDE = "stage 2, "


def duration(seconds: float) -> str:
    """Seconds as people say them; tenths below ten seconds alone.

    >>> [duration(seconds) for seconds in (0.44, 4.21, 42.1, 75, 120, 7265, 7200)]
    ['0.4 s', '4.2 s', '42 s', '1 min 15 s', '2 min', '2 h 1 min', '2 h']
    """
    if not math.isfinite(seconds) or seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, units = (*divmod(whole, 60), "min s") if whole < 3600 else (*divmod(whole // 60, 60), "h min")
    first, second = units.split()
    return f"{large} {first} {small} {second}" if small else f"{large} {first}"


def roughly(seconds: float) -> str:
    """Of a guess, no more than it is worth.

    >>> [roughly(seconds) for seconds in (3, 33, 100)]
    ['less than 10 s', 'about 40 s', 'about 2 min']
    """
    if seconds < 10:
        return "less than 10 s"
    tens = 10 * math.ceil(seconds / 10)
    return f"about {duration(tens if tens < 60 else 60 * round(tens / 60 + 1e-9))}"


@dataclass(frozen=True)
class TimeRow:
    """A part of a job's time; one that is inside another is a part of the one before it that is not."""

    part: str
    seconds: float
    inside: bool


def time_rows(seconds: Mapping[str, float]) -> list[TimeRow]:
    """Where the time went, without what took none; what stage 2 consists of follows it.

    >>> times = {"stage 2: replay": 9.0, "assessment": 1.0, "stage 2, PT: removal": 2.0, "stage 2, PT: repair": 0.01}
    >>> [(row.part, row.inside) for row in time_rows(times)]
    [('stage 2: replay', False), ('PT: removal', True), ('assessment', False)]
    """
    spent = {part: own for part, own in seconds.items() if own >= _LEAST_SHOWN}
    inside = [TimeRow(part.removeprefix(_INSIDE), own, True) for part, own in spent.items() if part.startswith(_INSIDE)]
    rows: list[TimeRow] = []
    for part, own in spent.items():
        if not part.startswith(_INSIDE):
            rows.append(TimeRow(part, own, False))
            if part.startswith("stage 2: replay"):
                rows += inside
    return rows
