"""Draw the README's picture from the committed results, once for a light and once for a dark page.

    python tools/readme_picture.py

It reads the rows of `benchmarks/results/peers-resnet20.md`, and writes `images/proof.png` and `images/proof-dark.png`:
of every tool, what no faster way of it beats, as that page's own picture has it.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from standings import OURS, best_by, ways

matplotlib.use("agg")
import matplotlib.pyplot as plt

ROWS = ROOT / "benchmarks" / "results" / "peers-resnet20.jsonl"
DEPTH, SHARE = 20, 0.387
LEAST = 65.0
"""Percent below which nothing is drawn: networks that nobody would use."""
# By tool, what its points are called, from the first that is drawn on: offset in points, and alignment.
LABELS = {
    OURS: [
        ("250 images,\nleast squares", (8, -22), "left"),
        ("1,000", (9, -9), "left"),
        ("1,000 images,\nreconstruction", (4, -27), "left"),
        ("2,000", (0, 7), "center"),
        ("then 10 epochs of 50,000 labelled images", (36, 22), "right"),
    ],
    "Torch-Pruning": [
        ("1 epoch of 5,000\nlabelled images", (8, -22), "left"),
        ("", (0, 0), "left"),  # hardly faster than the next, which is another way of choosing filters
        ("4 epochs", (8, -8), "left"),
        ("1 epoch of 50,000", (8, -8), "left"),
        ("3 epochs", (6, -14), "left"),
        ("10 epochs", (0, -18), "center"),
    ],
    "ModelOpt FastNAS": [
        ("", (0, 0), "left"),
        ("4 epochs of 5,000", (8, -10), "left"),
    ],
}


def draw(path: Path, ink: str, paper: str, colours: dict[str, str]) -> None:
    """Write the picture in these colours."""
    found = ways([json.loads(line) for line in ROWS.read_text().splitlines()], DEPTH, SHARE)
    figure, axes = plt.subplots(figsize=(8, 4.4), facecolor=paper)
    axes.set_facecolor(paper)
    dense = statistics.mean(found[OURS][0]["dense"])
    axes.axhline(dense, color=ink, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
    axes.text(6.4, dense + 0.4, f"before pruning: {dense:.1f}%", color=ink, va="bottom", fontsize=10)
    for tool, labels in LABELS.items():
        curve = [point for point in best_by(found[tool]) if point[1] >= LEAST]
        width, size = (2.5, 60) if tool == OURS else (1.5, 36)
        axes.plot(*zip(*curve, strict=True), color=colours[tool], linewidth=width, zorder=2)
        axes.scatter(*zip(*curve, strict=True), color=colours[tool], s=size, zorder=3)
        for spot, (label, offset, side) in zip(curve, labels, strict=True):
            axes.annotate(
                label, spot, offset, textcoords="offset points", ha=side, color=colours[tool], fontsize=9.5, zorder=4
            )
    axes.text(27, 87.6, "ice_ray, no labels", color=colours[OURS], fontsize=12, fontweight="bold", ha="right")
    axes.text(420, 83.0, "Torch-Pruning", color=colours["Torch-Pruning"], fontsize=11, ha="left")
    axes.text(185, 75.2, "ModelOpt FastNAS", color=colours["ModelOpt FastNAS"], fontsize=11, ha="left")
    axes.set_xscale("log")
    axes.set_xlim(6, 2400)
    axes.set_ylim(65, 95)
    axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("pruning and training (seconds of one CPU core)", color=ink, fontsize=11)
    axes.set_ylabel("accuracy after pruning (%)", color=ink, fontsize=11)
    axes.tick_params(colors=ink, labelsize=10)
    axes.grid(color=ink, alpha=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ink)
    figure.tight_layout()
    figure.savefig(path, dpi=200, facecolor=paper, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    light = {OURS: "#0969da", "Torch-Pruning": "#bc4c00", "ModelOpt FastNAS": "#1a7f37"}
    dark = {OURS: "#58a6ff", "Torch-Pruning": "#f0883e", "ModelOpt FastNAS": "#3fb950"}
    draw(ROOT / "images" / "proof.png", "#1f2328", "#ffffff", light)
    draw(ROOT / "images" / "proof-dark.png", "#e6edf3", "#0d1117", dark)
