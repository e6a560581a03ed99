"""Draw the README's picture from the committed results, once for a light and once for a dark page.

    python tools/readme_picture.py

It reads two tables of `benchmarks/results`, and writes `images/proof.png` and
`images/proof-dark.png`. Every point is the mean of three seeds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SETTING, RATIO = "small-resnet20-bf16", 0.6

# Rows that train no whole network but repair each step, by their number of calibration images.
REPAIRED = {150: "150 images", 250: "250", 500: "500", 1000: "1,000"}
OTHERS = {
    "baseline": "always fine-tune",
    "ice": "ICE, as published",
    "one-shot + LLR": "one-shot, then\n4 epochs",
    "imp": "IMP (27% left)",
    "aap": "AAP (42% left)",
}
# Where a label stands: offset in points, and the alignment that goes with it.
PLACES = {
    "always fine-tune": (8, 5, "left"),
    "ICE, as published": (8, -9, "left"),
    "one-shot, then\n4 epochs": (0, -31, "center"),
    "IMP (27% left)": (8, -3, "left"),
    "AAP (42% left)": (0, 9, "center"),
}


def points() -> pd.DataFrame:
    """Mean accuracy (%) on the test images and pruning time (s) by pipeline."""
    files = ("repaired", "compare-small-resnet20-bf16")
    rows = pd.concat([pd.read_parquet(RESULTS / f"{name}.parquet") for name in files])
    rows = rows[(rows.setting == SETTING) & (rows.ratio == RATIO) & (rows.part == "replay")]
    rows = rows.assign(seconds=rows.pruning_seconds + rows.final_seconds)
    return rows.groupby("pipeline").agg(
        accuracy=("report", "mean"), seconds=("seconds", "mean"), dense=("dense_report", "mean")
    )


def draw(path: Path, ink: str, paper: str, ours: str, theirs: str) -> None:
    """Write the picture in these colours."""
    table = points()
    figure, axes = plt.subplots(figsize=(8, 4.4), facecolor=paper)
    axes.set_facecolor(paper)
    dense = table.loc["baseline", "dense"]
    axes.axhline(dense, color=ink, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
    axes.text(4.4, dense - 0.4, f"before pruning: {dense:.1f}%", color=ink, va="top", fontsize=10)
    repaired = table.loc[[f"reconstruction, {number} images" for number in REPAIRED]]
    whole = table.loc["reconstruction, up to four epochs"]
    axes.plot(
        [*repaired.seconds, whole.seconds], [*repaired.accuracy, whole.accuracy], color=ours, linewidth=2, zorder=2
    )
    axes.scatter(repaired.seconds, repaired.accuracy, color=ours, s=50, zorder=3)
    axes.scatter(whole.seconds, whole.accuracy, color=ours, s=150, marker="*", zorder=3)
    for label, (_, row) in zip(REPAIRED.values(), repaired.iterrows(), strict=True):
        axes.annotate(label, (row.seconds, row.accuracy), (6, -13), textcoords="offset points", color=ours, fontsize=10)
    axes.annotate(
        "ice_ray, default\n(2,000 images)",
        (whole.seconds, whole.accuracy),
        (0, 11),
        textcoords="offset points",
        ha="center",
        color=ours,
        fontsize=11,
        fontweight="bold",
    )
    axes.text(4.8, 81.6, "ice_ray: repair alone,\nby number of images", color=ours, fontsize=10, va="center")
    for pipeline, label in OTHERS.items():
        row = table.loc[pipeline]
        axes.scatter(row.seconds, row.accuracy, color=theirs, s=50, marker="s", zorder=3)
        right, up, side = PLACES[label]
        axes.annotate(
            label,
            (row.seconds, row.accuracy),
            (right, up),
            textcoords="offset points",
            ha=side,
            color=theirs,
            fontsize=10,
        )
    axes.set_xscale("log")
    axes.set_xlim(4.2, 800)
    axes.set_ylim(64, 90)
    axes.set_xticks([5, 10, 20, 50, 100, 200, 500], ["5", "10", "20", "50", "100", "200", "500"])
    axes.minorticks_off()
    axes.set_xlabel("pruning time (seconds of one CPU core)", color=ink, fontsize=11)
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
    draw(ROOT / "images" / "proof.png", ink="#1f2328", paper="#ffffff", ours="#0969da", theirs="#6e7781")
    draw(ROOT / "images" / "proof-dark.png", ink="#e6edf3", paper="#0d1117", ours="#58a6ff", theirs="#9198a1")
