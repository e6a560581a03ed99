"""The pages of the comparisons of pipelines: table, parquet, picture."""

from __future__ import annotations

import itertools
import statistics
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from common import RESULTS, Ledger, Row, command, spread, table, write_parquet
from contest import Contestant, Setting
from matplotlib.ticker import LogLocator

from ice_ray.pipelines.registry import pipeline_named

matplotlib.use("agg")
import matplotlib.pyplot as plt


def page_option(parser: ArgumentParser) -> None:
    """`--page`, for who does not want to wait."""
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what has been run")


@dataclass(frozen=True)
class Cell:
    """The replays of one pipeline at one ratio, and what its search took, in which other setting if not in this."""

    pipeline: str
    ratio: float
    rows: tuple[Row, ...]
    search_seconds: float
    searched_in: str = ""

    def of(self, name: str) -> list[float]:
        """One figure of every seed."""
        return [float(row[name]) for row in self.rows]

    @property
    def seconds(self) -> list[float]:
        """PT, final epochs included."""
        return [row["pruning_seconds"] + row["final_seconds"] for row in self.rows]

    @property
    def point(self) -> str:
        """The hyperparameters, for people."""
        kind = pipeline_named(self.rows[0]["config"]["pipeline"]).Hyperparameters
        return str(kind.from_mapping(self.rows[0]["point"]))


def cells_of(
    setting: Setting, contestants: Sequence[Contestant], ratios: Sequence[float], seeds: Sequence[int], ledger: Ledger
) -> list[Cell]:
    """What the ledger holds, in the order of ratios and contestants."""
    found = []
    for ratio, contestant in itertools.product(ratios, contestants):
        key = {"setting": setting.name, "ratio": ratio, "pipeline": contestant.name, "part": "replay"}
        rows = tuple(row for row in ledger.rows if {**row["key"], "seed": 0} == {**key, "seed": 0})
        rows = tuple(row for row in rows if row["key"]["seed"] in seeds)
        tuner = contestant.tuned_as or contestant.name
        searched = {"setting": setting.name, "ratio": ratio, "pipeline": tuner, "part": "search"}
        own: Row = next((row for row in ledger.rows if row["key"] == searched), {})
        if rows:
            found.append(Cell(contestant.name, ratio, rows, own.get("seconds", 0.0), own.get("as_in", "")))
    return found


def contest_table(cells: Sequence[Cell], baseline: str) -> str:
    """Accuracy, size and time of every cell; speed-up against the baseline at the same ratio, by PT."""
    base = {cell.ratio: statistics.mean(cell.seconds) for cell in cells if cell.pipeline == baseline}
    head = ["ratio", "pipeline", "test images %", "whole test split %", "parameters", "multiply-adds", "fine-tunes"]
    rows = [[*head, "PT s", "probe s", "search s", "in all s", f"PT against {baseline}"]]
    for cell in cells:
        everything = [
            own + row["probe_seconds"] + cell.search_seconds for own, row in zip(cell.seconds, cell.rows, strict=True)
        ]
        rows.append(
            [
                f"{cell.ratio:.0%}",
                f"`{cell.pipeline}`",
                spread(cell.of("report")),
                spread(cell.of("test")),
                spread(cell.of("parameters"), 3),
                spread(cell.of("multiply_adds"), 3),
                spread(cell.of("fine_tunes"), 1),
                spread(cell.seconds, 1),
                spread(cell.of("probe_seconds"), 1),
                f"{cell.search_seconds:.0f}",
                spread(everything, 0),
                f"{base[cell.ratio] / statistics.mean(cell.seconds):.2f}x" if cell.ratio in base else "",
            ]
        )
    return table(rows)


def points_table(cells: Sequence[Cell]) -> str:
    """The hyperparameters that each search chose."""
    head = ["ratio", "pipeline", "chosen", "by the search in"]
    return table([head, *([f"{c.ratio:.0%}", f"`{c.pipeline}`", c.point, c.searched_in or "this"] for c in cells)])


def draw(cells: Sequence[Cell], path: Path, title: str) -> None:
    """Accuracy against time, a colour per pipeline, a marker per ratio, a point per seed."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    names = list(dict.fromkeys(cell.pipeline for cell in cells))
    ratios = sorted({cell.ratio for cell in cells})
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    for cell in cells:
        marker: Any = "osD^"[ratios.index(cell.ratio) % 4]
        axes.scatter(cell.seconds, cell.of("report"), color=colours(names.index(cell.pipeline)), marker=marker, s=24)
    handles = [plt.Line2D([], [], color=colours(n), marker="o", ls="", label=name) for n, name in enumerate(names)]
    for number, ratio in enumerate(ratios):
        shape: Any = "osD^"[number % 4]
        handles.append(plt.Line2D([], [], color="grey", marker=shape, ls="", label=f"{ratio:.0%}"))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("pruning time, final epochs included (s)")
    axes.set_ylabel("accuracy on the test images (%)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3, which="both")
    figure.legend(handles=handles, fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)


def write_results(
    name: str,
    title: str,
    rules: str,
    parts: Sequence[tuple[str, list[Cell]]],
    baseline: str,
    claims: Callable[[Sequence[Cell]], str] | None = None,
) -> None:
    """`results/NAME.md`, `.parquet`, and a picture per part.

    Args:
        parts: (heading, cells) per model or setting.
        claims: what to say of a part's cells beside them.
    """
    rows = [row | {"search_seconds": cell.search_seconds} for _, cells in parts for cell in cells for row in cell.rows]
    write_parquet(name, [{**row, "config": str(row["config"]), "point": str(row["point"])} for row in rows])
    sections = []
    clock = "of the processor" if torch.get_num_threads() == 1 else "on the wall"
    for number, (heading, cells) in enumerate(parts):
        picture = f"{name}{number or ''}.png"
        draw(cells, RESULTS / picture, heading)
        least, most = (pick(len(cell.rows) for cell in cells) for pick in (min, max))
        seeds = f"{most} seed{'s' if most > 1 else ''}" + (f" ({least} in some rows)" if least < most else "")
        machines = " and ".join(sorted({row["machine"] for cell in cells for row in cell.rows}))
        said = f"{claims(cells)}\n\n" if claims else ""
        sections.append(
            f"## {heading}\n\n{seeds}, mean ± standard deviation; on {machines}. Dense: "
            f"{cells[0].of('dense_report')[0]:.2f}% on the test images, {cells[0].of('dense_test')[0]:.2f}% on the "
            f"whole test split.\n\n{contest_table(cells, baseline)}\n\n{said}{points_table(cells)}\n\n"
            f"![{heading}]({picture})\n"
        )
    page = f"# {title}\n\n`{command()}`\n\n{rules}\n\nSeconds {clock}.\n\n" + "\n".join(sections)
    (RESULTS / f"{name}.md").write_text(page)
