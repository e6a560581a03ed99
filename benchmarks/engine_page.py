"""What `benchmarks/engine.py` found, as tables, a figure and a table of single figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from common import Row, command, machine, table

matplotlib.use("agg")
import matplotlib.pyplot as plt

ETAS = (0.0, 0.3, 0.6, 0.9, 1.0)


def ranged(values: list[float], form: str = "{:,.0f}") -> str:
    """Median, and range where there is more than one."""
    text = form.format(statistics.median(values))
    return text if len(values) == 1 else f"{text} [{form.format(min(values))}, {form.format(max(values))}]"


def speed_table(rows: list[Row]) -> str:
    head = ["model", "(a) forward", "(c) evaluation", "(c)/(a)", "(b) training", "(d) fine-tune", "(d)/(b)"]
    lines = [head]
    for name in dict.fromkeys(row["key"]["speeds"] for row in rows if "speeds" in row["key"]):
        own = [row for row in rows if row["key"].get("speeds") == name]
        a, b, c, d = ([row[part] for row in own] for part in "abcd")
        evaluated = [x / y for x, y in zip(c, a, strict=True)]
        trained = [x / y for x, y in zip(d, b, strict=True)]
        percent = [ranged([100 * each for each in share], "{:.0f}") + "%" for share in (evaluated, trained)]
        lines.append([name, ranged(a), ranged(c), percent[0], ranged(b), ranged(d), percent[1]])
    return table(lines)


def usual_text(rows: list[Row]) -> str:
    own = [row for row in rows if row["key"].get("speeds") == "cifar-resnet20"]
    ratio = [row["d"] / row["e"] for row in own]
    bound = [(1 / row["decoded"] + 1 / row["float32"]) * row["b"] for row in own]
    return (
        f"ResNet-20: (d) {ranged([row['d'] for row in own])} images/s, (e) {ranged([row['e'] for row in own])}: ratio "
        f"**{ranged(ratio, '{:.2f}')}**, bound {ranged(bound, '{:.2f}')} (decoding alone "
        f"{ranged([row['decoded'] for row in own])}, float32 training alone {ranged([row['float32'] for row in own])})."
    )


def saving_rows(rows: list[Row]) -> list[tuple[str, list[float], float]]:
    """Per share frozen: measured speed-up of the fine-tune in every turn, and that of the operations."""
    own = [row for row in rows if row["key"].get("part") == "savings"]
    names = [name for name in own[0] if name != "key"]
    return [
        (
            name,
            [row[name]["images"] / row["0"]["images"] for row in own],
            own[0]["0"]["flops"] / own[0][name]["flops"],
        )
        for name in names
    ]


def page(rows: list[Row], repeats: int, about: str, precision: str, picture: str) -> str:
    """The report in Markdown.

    Args:
        about: what was measured and how.
        picture: file name of the figure.
    """
    by_part = {row["key"]["part"]: row for row in rows if row["key"].get("part") in ("early", "overheads")}
    over = {part: seconds for part, seconds in by_part["overheads"].items() if part != "key"}
    epoch = 50_000 / statistics.median([row["d"] for row in rows if row["key"].get("speeds") == "cifar-resnet20"])
    parts = [["surgery", "data-parallel wrap", "checkpoint", "report", "together", "of an epoch"]]
    parts.append(
        [f"{1000 * over[part]:.1f} ms" for part in ("surgery", "wrap", "checkpoint", "report")]
        + [f"{1000 * sum(over.values()):.1f} ms", f"{100 * sum(over.values()) / epoch:.2f}%"]
    )
    frozen = [["frozen (eta)", "fine-tune faster by (measured)", "by operations (the bound)"]]
    frozen += [[name, ranged(each, "{:.2f}"), f"{bound:.2f}"] for name, each, bound in saving_rows(rows)]
    accurate = [row for row in rows if row["key"].get("part") == "accuracy"]
    close = [["seed", "engine (%)", "usual loop (%)"]]
    close += [[str(row["key"]["seed"]), f"{row['ours']:.2f}", f"{row['usual']:.2f}"] for row in accurate]
    close.append(["mean", *(f"{statistics.mean([row[loop] for row in accurate]):.2f}" for loop in ("ours", "usual"))])
    found = by_part["early"]
    steps = [["after step", *(str(number) for number in range(1, len(found["accuracy"]) + 1))]]
    steps.append(["accuracy (%)", *(f"{value:.1f}" for value in found["accuracy"])])
    for name in ("exact", "error 0.01"):
        steps.append([f"images looked at, {name}", *(f"{value:.0%}" for value in found[name])])
    return f"""# How close the engine is to the machine's limit

`{command()}`

{about}

{machine()}, {precision}; {repeats} repetitions.

## Images a second

{speed_table(rows)}

{usual_text(rows)}

## What freezing saves

ResNet-20, shallow layers frozen first; "cut" is `--freeze.stem`, which ends the backward pass below the lowest layer
that trains.

{table(frozen)}

![speed of a fine-tune against the share frozen]({picture})

## What a pruning step costs beside its fine-tune

ResNet-20, 60%, two processes (gloo), means over its nine steps; an epoch is (d) on 50,000 images, {epoch:.0f} s.

{table(parts)}

## Deciding early

The threshold (.5 points) asked of 5,000 validation images after each removal, nothing fine-tuned.

{table(steps)}

## Accuracy

ResNet-20 at 60%, one epoch of 10,000 images at learning rate .01, on the 5,000 test images.

{table(close)}
"""


def long_form(row: Row) -> list[Row]:
    """A line per figure."""
    key = {
        "part": row["key"].get("part", row["key"].get("speeds")),
        "turn": row["key"].get("turn", row["key"].get("seed")),
    }

    def lines(value: Any, name: str) -> Iterator[Row]:
        if isinstance(value, (int, float)):
            yield {"key": key, "figure": name, "value": float(value)}
            return
        for inner, each in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            yield from lines(each, f"{name} {inner}".strip())

    return [line for name, value in row.items() if name != "key" for line in lines(value, name)]


def draw(rows: list[Row], path: Path) -> None:
    """Measured speed-up and bound over the share frozen."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    lines = saving_rows(rows)
    for label, cut, colour in (("frozen", False, "C0"), ("frozen and cut", True, "C1")):
        own = [line for line in lines if line[0].endswith("cut") == cut]
        axes.plot(ETAS, [np.median(each) for _, each, _ in own], "o-", color=colour, label=f"{label}, measured")
        axes.plot(ETAS, [bound for _, _, bound in own], "--", color=colour, label=f"{label}, by operations")
    axes.set_xlabel("share of the layers frozen, shallow ones first")
    axes.set_ylabel("speed of a fine-tune")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
