"""What the paper claims of its pipeline, beside what our runs say."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

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


def against_rivals(cells: Sequence[Cell]) -> str:
    """Whether ICE is faster than the baseline and AAP at similar accuracy, ratio by ratio."""
    found = {(cell.pipeline, cell.ratio): cell for cell in cells}
    rows = [["ratio", "ICE against", "speed-up, published", "here", "accuracy, published", "here", "holds"]]
    for ratio, rival in itertools.product(sorted({cell.ratio for cell in cells}), ("baseline", "aap")):
        own, other = found.get(("ice", ratio)), found.get((rival, ratio))
        if own is None or other is None:
            continue
        speed = statistics.mean(other.seconds) / statistics.mean(own.seconds)
        gain = statistics.mean(own.of("report")) - statistics.mean(other.of("report"))
        published = _AGAINST_RIVALS.get((rival, ratio))
        speed_there, gain_there = (f"{published[0]:.2f}x", f"{published[1]:+.2f}") if published else ("", "")
        holds = _verdict(_is_faster(own, other), gain > -SIMILAR_POINTS)
        rows.append([f"{ratio:.0%}", f"`{rival}`", speed_there, f"{speed:.2f}x", gain_there, f"{gain:+.2f}", holds])
    return (
        "The paper's claim: ICE-Pruning is faster than both at similar accuracy. Published: ResNet-152 on CIFAR-10. "
        f"Similar is at most {SIMILAR_POINTS:g} point less, between means; faster is by more than the standard "
        "deviations of both. ICE saves the fine-tunes that its threshold lets it skip: the table above says how many "
        "it made. AAP keeps what that table says, more than ICE does where it never comes to its bound.\n\n"
        f"{table(rows)}"
    )


def of_parts(cells: Sequence[Cell]) -> str:
    """Whether each part of ICE shortens pruning, ratio by ratio."""
    found = {(cell.pipeline, cell.ratio): cell for cell in cells}
    rows = [["ratio", "part", "time saved, published at most", "here", "accuracy against the row without it", "holds"]]
    for ratio, (part, most) in itertools.product(sorted({cell.ratio for cell in cells}), _OF_PARTS.items()):
        own, without = found.get(("ice", ratio)), found.get((f"ice, no {part}", ratio))
        if own is None or without is None:
            continue
        saved = 100 * (1 - statistics.mean(own.seconds) / statistics.mean(without.seconds))
        gain = statistics.mean(own.of("report")) - statistics.mean(without.of("report"))
        holds = _verdict(_is_faster(own, without), gain > -SIMILAR_POINTS)
        rows.append([f"{ratio:.0%}", part, f"{most:.2f}%", f"{saved:.1f}%", f"{gain:+.2f}", holds])
    return (
        "The paper's claim: every part shortens pruning, and all of them together trade time for accuracy best. "
        f"It holds where time is saved and accuracy is at most {SIMILAR_POINTS:g} point less.\n\n{table(rows)}"
    )


def _is_faster(own: Cell, other: Cell) -> bool:
    """By more than one standard deviation of either."""
    spreads = sum(statistics.stdev(cell.seconds) for cell in (own, other) if len(cell.seconds) > 1)
    return statistics.mean(other.seconds) - statistics.mean(own.seconds) > spreads


def _verdict(faster: bool, similar: bool) -> str:
    if faster and similar:
        return "yes"
    return "no: " + ", ".join(word for word, held in (("not faster", faster), ("less accurate", similar)) if not held)
