"""What the paper claims of its pipeline, beside what our runs say."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common import table
from contest_page import Cell

SIMILAR_POINTS = 1.0
_AGAINST_RIVALS = {
    ("baseline", 0.6): (3793 / 1943, 92.23 - 92.15),
    ("baseline", 0.8): (3811 / 3266, 91.10 - 91.11),
    ("aap", 0.6): (4909 / 1943, 92.23 - 91.91),
    ("aap", 0.8): (8710 / 3266, 91.10 - 91.20),
}
"""ICE's speed-up and accuracy over a rival's (ResNet-152, CIFAR-10, Table III; its 70% is not legible)."""
_OF_PARTS = {"threshold": 56.43, "freezing": 10.75, "scheduler": 11.68}
"""By how many percent at most each part shortens pruning (section V)."""


@dataclass(frozen=True)
class Difference:
    """ICE beside another row at its ratio: how many times as fast, how many points more, whether the claim holds."""

    ratio: float
    other: str
    speed: float
    points: float
    verdict: str


def against_rivals(cells: Sequence[Cell]) -> str:
    """Whether ICE is faster than the baseline and AAP at similar accuracy, ratio by ratio."""
    rows = [["ratio", "ICE against", "speed-up, published", "here", "accuracy, published", "here", "holds"]]
    for each in _differences(cells, ("baseline", "aap")):
        published = _AGAINST_RIVALS.get((each.other, each.ratio))
        speed, points = (f"{published[0]:.2f}x", f"{published[1]:+.2f}") if published else ("", "")
        here = (f"{each.speed:.2f}x", f"{each.points:+.2f}")
        rows.append([f"{each.ratio:.0%}", f"`{each.other}`", speed, here[0], points, here[1], each.verdict])
    return (
        "The paper's claim: ICE-Pruning is faster than both at similar accuracy. Published: ResNet-152 on CIFAR-10. "
        f"Similar is at most {SIMILAR_POINTS:g} point less, between means; faster is by more than the standard "
        "deviations of both. ICE saves the fine-tunes that its threshold lets it skip: the table above says how many "
        "it made. AAP keeps what that table says, more than ICE does where it never comes to its bound.\n\n"
        f"{table(rows)}"
    )


def of_parts(cells: Sequence[Cell]) -> str:
    """Whether each part of ICE shortens pruning, ratio by ratio."""
    rows = [["ratio", "part", "time saved, published at most", "here", "accuracy against the row without it", "holds"]]
    parts = {f"ice, no {part}": part for part in _OF_PARTS}
    for each in _differences(cells, parts):
        part, saved = parts[each.other], f"{100 * (1 - 1 / each.speed):.1f}%"
        published = f"{_OF_PARTS[part]:.2f}%"
        rows.append([f"{each.ratio:.0%}", part, published, saved, f"{each.points:+.2f}", each.verdict])
    return (
        "The paper's claim: every part shortens pruning, and all of them together trade time for accuracy best. "
        f"It holds where time is saved and accuracy is at most {SIMILAR_POINTS:g} point less.\n\n{table(rows)}"
    )


def _differences(cells: Sequence[Cell], others: Iterable[str]) -> list[Difference]:
    """Where both rows are there, by ratio."""
    found = {(cell.pipeline, cell.ratio): cell for cell in cells}
    return [
        _difference(found["ice", ratio], found[other, ratio])
        for ratio, other in itertools.product(sorted({cell.ratio for cell in cells}), others)
        if ("ice", ratio) in found and (other, ratio) in found
    ]


def _difference(own: Cell, other: Cell) -> Difference:
    speed = statistics.mean(other.seconds) / statistics.mean(own.seconds)
    points = statistics.mean(own.of("report")) - statistics.mean(other.of("report"))
    failed = {"not faster": not _is_faster(own, other), "less accurate": points <= -SIMILAR_POINTS}
    no = ", ".join(word for word, holds in failed.items() if holds)
    return Difference(own.ratio, other.pipeline, speed, points, f"no: {no}" if no else "yes")


def _is_faster(own: Cell, other: Cell) -> bool:
    """By more than the standard deviations of both."""
    spreads = sum(statistics.stdev(cell.seconds) for cell in (own, other) if len(cell.seconds) > 1)
    return statistics.mean(other.seconds) - statistics.mean(own.seconds) > spreads
