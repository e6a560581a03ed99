"""What the rows of `peers.py` say: the best setting of each tool, who is faster by how much, tables and a picture."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
from common import Row, spread

matplotlib.use("agg")
import matplotlib.pyplot as plt

OURS = "ice_ray"
COLOURS = {OURS: "#0969da", "Torch-Pruning": "#bc4c00", "ICE-Pruning": "#6e7781", "ModelOpt FastNAS": "#1a7f37"}
Training = tuple[int, int, bool]
"""Images, epochs, distilled; (0, 0, False) for nothing, (1000, 0, False) for batch-norm statistics."""


def name_of(training: Training) -> str:
    images, epochs, distil = training
    if not epochs:
        return f"batch-norm statistics, {images:,} images" if images else "nothing"
    return f"{epochs} epoch{'s' * (epochs > 1)} of {images:,} images" + ", distilled" * distil


def ways(rows: list[Row], depth: int, share: float) -> dict[str, list[Row]]:
    """Per tool a row for each setting, training and rate, its figures seed by seed; in `seconds` those of pruning are
    counted. Of what has fewer seeds than others with the same training none is taken.
    """
    rows = [row for row in rows if (row["key"]["depth"], row["key"]["share"]) == (depth, share)]
    pruned = {_which(row): row for row in rows if not row["key"]["images"]}
    groups: dict[tuple[str, Training], dict[tuple[str, float], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key, before = row["key"], pruned.get(_which(row))
        if before is None:  # of another machine, it does not count
            continue
        spent = row["seconds"] + (before["seconds"] if row is not before else 0)
        one = row | {"seconds": spent, "multiply_adds": before["multiply_adds"], "version": before["version"]}
        training = key["images"], key["epochs"], key["distil"]
        groups[key["tool"], training][key["setting"], key["rate"]].append(one)
    found: dict[str, list[Row]] = defaultdict(list)
    for (tool, training), several in groups.items():
        most = max(map(len, several.values()))
        for (setting, rate), own in several.items():
            if len(own) == most:
                numbers = ("seconds", "multiply_adds", "deciding", "accuracy", "whole", "dense")
                columns = {what: [row[what] for row in own] for what in numbers}
                seeds = sorted(row["key"]["seed"] for row in own)
                about = {"training": training, "setting": setting, "rate": rate, "seeds": seeds}
                about |= {"version": own[0]["version"], "machines": {row["machine"] for row in own}}
                found[tool].append(about | columns)
    return found


def points(found: dict[str, list[Row]]) -> dict[str, dict[Training, Row]]:
    """Per tool and training the way that the deciding half likes best."""
    best: dict[str, dict[Training, Row]] = defaultdict(dict)
    for tool, rows in found.items():
        for training in {row["training"] for row in rows}:
            own = [row for row in rows if row["training"] == training]
            best[tool][training] = max(own, key=_deciding) | {"tried": len(own)}
    return best


def _deciding(row: Row) -> float:
    return statistics.mean(row["deciding"])


def _which(row: Row) -> tuple[Any, ...]:
    return tuple(row["key"][name] for name in ("tool", "setting", "depth", "share", "seed"))


def best_by(rows: list[Row]) -> list[tuple[float, float]]:
    """Seconds and accuracy of a tool's ways that no faster one of it beats on the deciding half, by seconds."""
    curve, most = list[tuple[float, float]](), -math.inf
    for row in sorted(rows, key=lambda row: (statistics.mean(row["seconds"]), -_deciding(row))):
        if _deciding(row) > most:
            most = _deciding(row)
            curve.append((statistics.mean(row["seconds"]), statistics.mean(row["accuracy"])))
    return curve


def seconds_to(curve: list[tuple[float, float]], wanted: float) -> float | None:
    """When a curve comes to an accuracy: between its points along the logarithm of the seconds; None for never."""
    if curve[0][1] >= wanted:
        return curve[0][0]
    for (before, low), (after, high) in itertools.pairwise(curve):
        if high >= wanted > low:
            return math.exp(math.log(before) + (wanted - low) / (high - low) * math.log(after / before))
    return None


def said(found: dict[str, list[Row]]) -> list[str]:
    """At equal accuracy, how much faster; and where another tool is ahead."""
    curves = {tool: best_by(own) for tool, own in found.items()}
    if OURS not in curves:
        return ["No row of ours is here yet."]
    ours, others = curves[OURS], {tool: curve for tool, curve in curves.items() if tool != OURS}
    lines = ["At the accuracy of a point of ours, between points along the logarithm of the seconds:", ""]
    for seconds, reached in ours:
        against = []
        for tool, curve in others.items():
            theirs = seconds_to(curve, reached)
            if theirs is None:
                most = max(curve, key=lambda point: point[1])
                against.append(f"{tool} comes to {most[1]:.2f}% at most, after {_time(most[0])}")
            else:
                against.append(f"{tool} takes {_time(theirs)}, {theirs / seconds:.2f} times as long")
        lines.append(f"- {reached:.2f}% after {_time(seconds)}: {'; '.join(against) or 'nobody to compare with'}.")
    ahead = []
    for tool, curve in others.items():
        for seconds, reached in curve:
            own = seconds_to(ours, reached)
            if own is None or own > seconds:
                when = "never does" if own is None else f"takes {_time(own)}"
                ahead.append(f"- {tool} has {reached:.2f}% after {_time(seconds)}; ours {when}.")
    return [*lines, "", "Where another tool is ahead:", "", *(ahead or ["- nowhere in these rows."])]


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def draw(path: Path, found: dict[str, list[Row]]) -> None:
    """Accuracy over processor seconds: all ways, and per tool a line through what none of its faster ones beats."""
    figure, axes = plt.subplots(figsize=(8, 4.4), facecolor="white")
    for tool, own in found.items():
        spots = [(statistics.mean(row["seconds"]), statistics.mean(row["accuracy"])) for row in own]
        axes.scatter(*zip(*spots, strict=True), color=COLOURS[tool], s=14, alpha=0.35, linewidths=0)
        axes.plot(*zip(*best_by(own), strict=True), color=COLOURS[tool], linewidth=2, marker="o", label=tool)
    (dense, *_) = (row["dense"][0] for own in found.values() for row in own)
    axes.axhline(dense, color="#1f2328", linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
    axes.annotate(f"before pruning: {dense:.1f}%", (0, dense), (2, -12), ("axes fraction", "data"), "offset points")
    axes.set_xscale("log")
    axes.set_xlabel("processor seconds, pruning and training (one core)")
    axes.set_ylabel("accuracy after pruning (%)")
    axes.grid(alpha=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def best_settings(found: dict[str, dict[Training, Row]]) -> list[list[str]]:
    """A line per tool and training."""
    lines = [["tool", "then", "%", "processor s", "multiply-adds", "best setting", "rate", "ways tried", "seeds"]]
    for tool, own in found.items():
        for training, row in sorted(own.items()):
            lines.append(
                [
                    tool,
                    name_of(training),
                    f"{spread(row['accuracy'])} ({spread(row['whole'])})",
                    spread(row["seconds"], 1),
                    spread(row["multiply_adds"], 4),
                    row["setting"],
                    f"{row['rate']:g}" if row["rate"] else "",
                    str(row["tried"]),
                    ", ".join(map(str, row["seeds"])),
                ]
            )
    return lines


def all_settings(rows: list[Row], depth: int, share: float) -> list[list[str]]:
    """A line per setting of every tool, a column per training."""
    names = {(row["key"]["tool"], row["key"]["setting"]) for row in rows}
    each = {}
    for tool, setting in sorted(names):
        own = [row for row in rows if (row["key"]["tool"], row["key"]["setting"]) == (tool, setting)]
        if found := points(ways(own, depth, share)):
            each[tool, setting] = found[tool]
    trainings = sorted({training for own in each.values() for training in own})
    lines = [["tool", "setting", *map(name_of, trainings)]]
    for (tool, setting), own in each.items():
        cells = [own.get(training) for training in trainings]
        lines.append([tool, setting, *("" if row is None else _cell(row) for row in cells)])
    return lines


def _cell(row: Row) -> str:
    return f"{statistics.mean(row['accuracy']):.2f}, {statistics.mean(row['seconds']):,.1f} s"
