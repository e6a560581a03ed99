"""What the paper claims of its pipeline, and what repairs are to reach, beside what our runs say."""

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

GOAL_SPEED, GOAL_POINTS = 20, 5
_BY_DEFAULT = "reconstruction, up to four epochs"
_UNREPAIRED = ("ice", "one-shot + LLR")


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


def of_repairs(cells: Sequence[Cell]) -> str:
    """How much faster than always fine-tuning at no less accuracy, and how much better in no more time, by ratio."""
    head = ["ratio", "always fine-tuned", f"{GOAL_SPEED}x as fast at no less accuracy"]
    rows = [[*head, f"{GOAL_POINTS} points better in no more time", "`up to four epochs` against `ice`"]]
    for ratio in sorted({cell.ratio for cell in cells}):
        at = {cell.pipeline: cell for cell in cells if cell.ratio == ratio}
        steady = [cell for name, cell in at.items() if name.startswith("baseline")]
        repaired = [cell for cell in at.values() if cell.pipeline not in _UNREPAIRED and cell not in steady]
        if steady and repaired:
            bar = max(steady, key=_accuracy)
            as_good = [cell for cell in repaired if _accuracy(cell) >= _accuracy(bar)]
            in_time = [cell for cell in repaired if _seconds(cell) <= _seconds(bar)]
            rows.append(
                [
                    f"{ratio:.0%}",
                    f"`{bar.pipeline}`: {_accuracy(bar):.1f}% in {_seconds(bar):.0f} s",
                    _goal(min(as_good, key=_seconds), bar, fast=True) if as_good else "no: none is as good",
                    _goal(max(in_time, key=_accuracy), bar, fast=False) if in_time else "no: none is as fast",
                    _beside(at[_BY_DEFAULT], at["ice"]) if {_BY_DEFAULT, "ice"} <= set(at) else "",
                ]
            )
    return (
        "What was to be reached against always fine-tuning, at the better of its rates where two were run, by any row "
        f"with repairs; and `{_BY_DEFAULT}` is to be behind published ICE neither in accuracy nor in PT. Between "
        "means; of several rows that would do, the scores themselves say which is shown.\n\n"
        f"{table(rows)}"
    )


def _accuracy(cell: Cell) -> float:
    return statistics.mean(cell.of("report"))


def _seconds(cell: Cell) -> float:
    return statistics.mean(cell.seconds)


def _against(own: Cell, other: Cell) -> tuple[float, float]:
    """How many times as fast, and how many points more, between means."""
    return _seconds(other) / _seconds(own), _accuracy(own) - _accuracy(other)


def _goal(cell: Cell, bar: Cell, fast: bool) -> str:
    """The row that comes closest to a goal, and whether it is there."""
    speed, points = _against(cell, bar)
    reached = speed >= GOAL_SPEED if fast else points >= GOAL_POINTS
    return f"{'yes' if reached else 'no'}: `{cell.pipeline}`, {speed:.1f}x, {points:+.1f}"


def _beside(own: Cell, other: Cell) -> str:
    speed, points = _against(own, other)
    return f"{'yes' if speed >= 1 and points >= 0 else 'no'}: {speed:.1f}x, {points:+.1f}"


def _differences(cells: Sequence[Cell], others: Iterable[str]) -> list[Difference]:
    """Where both rows are there, by ratio."""
    found = {(cell.pipeline, cell.ratio): cell for cell in cells}
    return [
        _difference(found["ice", ratio], found[other, ratio])
        for ratio, other in itertools.product(sorted({cell.ratio for cell in cells}), others)
        if ("ice", ratio) in found and (other, ratio) in found
    ]


def _difference(own: Cell, other: Cell) -> Difference:
    speed, points = _against(own, other)
    failed = {"not faster": not _is_faster(own, other), "less accurate": points <= -SIMILAR_POINTS}
    no = ", ".join(word for word, holds in failed.items() if holds)
    return Difference(own.ratio, other.pipeline, speed, points, f"no: {no}" if no else "yes")


def _is_faster(own: Cell, other: Cell) -> bool:
    """By more than the standard deviations of both."""
    spreads = sum(statistics.stdev(cell.seconds) for cell in (own, other) if len(cell.seconds) > 1)
    return _seconds(other) - _seconds(own) > spreads
