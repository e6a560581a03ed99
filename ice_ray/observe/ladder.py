"""A ladder's rungs side by side, as a table and as a figure, so that a person picks one."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ice_ray.observe.outcome import RUNTIME

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rungs = Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
"""From the top: a rung's target, and the figures of the dense network and of its own, measured beside each other."""
_LATENCY = "latency_64_ms"
_SHARES = {
    "multiply_adds": "multiply-adds",
    "parameters": "parameters",
    "file_bytes": "size on disk",
    _LATENCY: f"latency, {RUNTIME}, batch 64",
}


def ladder_table(rungs: Rungs, title: str) -> Table:
    """A row for the dense network and one for each rung: accuracy in percent, and what is left of the rest."""
    shares = {key: name for key, name in _SHARES.items() if key in rungs[0][1]}
    table = Table(title=title, title_justify="left")
    for column in ("target", "accuracy", "drop", *shares.values()):
        table.add_column(column, justify="left" if column == "target" else "right")
    table.add_row("dense", f"{_accuracy(rungs[0][1]):.2f}%", "", *("100.0%" for _ in shares))
    for name, dense, own in rungs:
        drop = f"{_accuracy(dense) - _accuracy(own):.2f}"
        table.add_row(name, f"{_accuracy(own):.2f}%", drop, *(f"{_share(key, dense, own):.1f}%" for key in shares))
    return table


def draw_ladder(figure: Figure, rungs: Rungs, title: str) -> Axes:
    """Accuracy over multiply-adds and, in a panel beside, over latency, of the dense network and all rungs, on an empty
    figure; returns the first panel.
    """
    keys = [key for key in ("multiply_adds", _LATENCY) if key in rungs[0][1]]
    figure.set_size_inches(5.5 * len(keys), 4.2)
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        draw_rungs(axes, rungs, key)
    panels[0].set_ylabel("accuracy (%)")
    figure.suptitle(title)
    figure.tight_layout()
    first: Axes = panels[0]
    return first


def draw_rungs(axes: Axes, rungs: Rungs, key: str = "multiply_adds") -> None:
    """Accuracy over what is left of one quantity."""
    dense = _accuracy(rungs[0][1])
    shares = [100.0, *(_share(key, whole, own) for _, whole, own in rungs)]
    accuracies = [dense, *(_accuracy(own) for _, _, own in rungs)]
    axes.plot(shares, accuracies, marker="o")
    axes.annotate(f"dense {dense:.2f}", (shares[0], dense), (4, 4), textcoords="offset points", va="bottom")
    for share, accuracy, (name, _, _) in zip(shares[1:], accuracies[1:], rungs, strict=True):
        # Below what falls to the right, a label to the left of its point crosses no line.
        text, place = f"{name}\n{accuracy:.2f}", (share, accuracy)
        axes.annotate(text, place, (-4, -6), textcoords="offset points", ha="right", va="top")
    axes.axhline(dense, linestyle="--", color="grey")
    axes.set_xlim(max(shares) + 4, min(shares) - 4)
    margin = 0.12 * (dense - min(accuracies) + 5)  # for the labels
    axes.set_ylim(min(accuracies) - margin, max(accuracies) + margin)
    axes.set_xlabel(f"{_SHARES[key]} left (%)")


def ladder_png(rungs: Rungs, title: str) -> bytes:
    """The figure as a picture."""
    from matplotlib.figure import Figure  # takes a while to load

    figure, held = Figure(), io.BytesIO()
    draw_ladder(figure, rungs, title)
    figure.savefig(held, format="png", dpi=150)
    return held.getvalue()


def _accuracy(facts: Mapping[str, Any]) -> float:
    """On the test images, where a run has measured it on them."""
    return float(facts.get("test_accuracy", facts["validation_accuracy"]))


def _share(key: str, dense: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    return 100 * float(own[key]) / float(dense[key])
