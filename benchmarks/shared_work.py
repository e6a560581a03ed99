"""The whole 216-point grid with shared work, against the same engine without it and against the paper's way.

    python benchmarks/shared_work.py

ResNet-20, CIFAR-10 as JPEG, 60% of the filters of every block, 1,000 training images a fine-tune (2%), 1,000 deciding,
trials of one CPU each, two at a time. Every search is `jobs/ice_search.py`, as a user runs it.

1. The grid, shared: segments (fine-tunes) asked for and carried out; compute seconds and wall seconds.
2. Twelve of its points (seeded) with `--search.no-share-work`, two at a time; and again one at a time.
3. The grid once more with everything known: what a trial costs that has nothing to compute.
4. Three of the twelve the paper's way (`paper_way.py`), two threads each.

Sharing factor: compute seconds that the grid's trials would have taken alone, over those spent. Engine factor: wall
seconds of a point the paper's way, over those of a point of the same engine without sharing, both on two cores.
Finished parts are kept below --work and not redone.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import torch
from common import PUBLISHED, RESULTS, Ledger, Row, arguments, command, dense_resnet20, machine, table, write_parquet
from paper_way import paper_point
from scipy.stats import kendalltau

from ice_ray.cache.actions import ActionIndex, ActionRecord, key_of
from ice_ray.cache.storage import ActionLog
from ice_ray.engine.actions import Action, FineTune, Outcome, Score, SnapshotId
from ice_ray.engine.network import DenseNetwork
from ice_ray.pipelines.dry_run import KnownOutcomes, run_dry
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.trials.prepare import SearchPreparation
from ice_ray.trials.run import point_log

matplotlib.use("agg")
import matplotlib.pyplot as plt

JOB = Path(__file__).parent.parent / "jobs" / "ice_search.py"
SHARE, EVAL_IMAGES, CORES = 0.02, 1000, 2
SAMPLE, PAPER_POINTS = 12, 3


def search(options: Any, name: str, *extra: str) -> Row:
    """A search below --work, gone on with where it was interrupted; what its best.json and its rows say."""
    storage = options.work.resolve() / "shared_work"
    folder = storage / name
    shared = options.shared.resolve()
    words = [
        *(sys.executable, str(JOB), "--storage", str(storage), "--name", name),
        *("--data", f"cifar10:{shared / 'datasets' / 'cifar10-jpeg'}", "--model", "cifar-resnet20"),
        *("--weights", str(shared / "weights" / "resnet20_cifar10jpeg.safetensors"), "--ratio", "0.6"),
        *("--space", "paper-cifar10", "--criterion", "l1", "--repair", "none", "--decision-error", "0"),
        *("--search.objective", "auto", "--calibration-images", "1000"),
        *("--search.subsample", str(SHARE), "--search.eval-images", str(EVAL_IMAGES)),
        *("--search.batch-size", "128", "--search.clock", "work", *extra),
    ]
    began = time.perf_counter()
    subprocess.run([*words, "--resume"] if (folder / "run.json").is_file() else words, check=True)
    best = json.loads((folder / "best.json").read_text())
    return {
        "job_seconds": time.perf_counter() - began,
        "wall_seconds": best["seconds"]["stage 1: trials"],
        "winner": best["trial"],
        "flops_per_second": best["flops_per_second"],
        "trials": best["trials"]["finished"],
        **best["work"],
        "points": [dataclasses.asdict(point) for point in point_log(folder, "ice").load()],
        **dict(zip(("drop", "wall", "flops"), outcomes(folder), strict=True)),
    }


def outcomes(folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Per trial: its final drop, and its pruning time as wall seconds and as operations."""
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    parts = ("scoring", "removal", "repair", "measuring", "fine_tuning")
    trials = [[row for row in rows if row["trial"] == trial] for trial in range(rows[-1]["trial"] + 1)]
    return (
        [steps[-1]["drop"] for steps in trials],
        [sum(step[f"{part}_seconds"] for step in steps for part in parts) for steps in trials],
        [sum(step["flops"] for step in steps) for steps in trials],
    )


def known_again(options: Any) -> Row:
    """The finished grid, run once more with every action record known and no trial begun."""
    storage = options.work.resolve() / "shared_work"
    again = storage / "known"
    shutil.rmtree(again, ignore_errors=True)
    shutil.copytree(storage / "grid", again)
    for path in (again / "best.json", again / "trials.parquet", *(again / "search").glob("trial-*.json")):
        path.unlink()
    return search(options, "known", *grid_size(options))


def grid_size(options: Any) -> list[str]:
    """The whole grid, or the points asked for."""
    return ["--search.trials", str(options.points)] if options.points else []


class Recording:
    """Answers from what is known, and remembers what it was asked."""

    def __init__(self, known: KnownOutcomes) -> None:
        self._known = known
        self.network, self.root, self.validation_images = known.network, known.root, known.validation_images
        self.asked: list[ActionRecord] = []

    def run(self, snapshot: SnapshotId, action: Action) -> Outcome:
        """As `KnownOutcomes.run`."""
        outcome = self._known.run(snapshot, action)
        action_record = self._known.index.known(key_of(snapshot, action))
        assert action_record is not None
        self.asked.append(action_record)
        return outcome


def segments(options: Any) -> list[Row]:
    """For every trial of the grid and every action it asked for: key, step, seconds alone and seconds spent."""
    folder = options.work.resolve() / "shared_work" / "grid"
    prepared = SearchPreparation.load(folder / "preparation.json")
    index = ActionIndex()
    for action_record in ActionLog(folder / "search" / "actions.jsonl").load():
        index.tell(action_record)
    network = DenseNetwork(dense_resnet20(options.shared), (3, 32, 32))
    numbers: dict[str, int] = {}
    rows: list[Row] = []
    for trial, point in enumerate(point_log(folder, "ice").load()):
        known = Recording(KnownOutcomes(network, prepared.root, prepared.validation_images, index))
        pipeline = IcePipeline(config=PUBLISHED, hyperparameters=point)
        dry_run = run_dry(pipeline, pipeline.begin(known), prepared.preparation, known)
        if dry_run.next is not None:
            raise SystemExit(f"trial {trial} of the grid is not known to its end")
        step = 0
        for action_record in known.asked:
            key = key_of(action_record.snapshot, action_record.action)
            assert action_record.outcome is not None
            if isinstance(action_record.action, Score):  # what a step begins with
                step = action_record.action.step
            rows.append(
                {
                    "key": {"trial": trial, "step": step},
                    "segment": numbers.setdefault(key, len(numbers)),
                    "fine_tune": isinstance(action_record.action, FineTune),
                    "alone_seconds": action_record.outcome.cost.wall_seconds,
                    "seconds": action_record.seconds,
                    "flops": action_record.outcome.cost.flops,
                }
            )
    return rows


def page(rows: dict[str, Row], papers: list[Row]) -> str:
    """The report in Markdown."""
    grid, two, one, known = (rows[name] for name in ("grid", "two", "one", "known"))
    trials = grid["trials"]
    sharing = grid["asked_seconds"] / grid["seconds"]
    alone = two["wall_seconds"] / two["trials"]
    paper = float(np.mean([row["seconds"] for row in papers]))
    shared = grid["wall_seconds"] / trials
    overhead = (grid["wall_seconds"] * CORES - grid["seconds"]) / grid["seconds"]
    chosen = [grid["points"].index(point) for point in two["points"]]
    figures = [
        ["", "measured", "asked"],
        ["fine-tunes asked for / carried out", f"{grid['asked_fine_tunes']:,} / {grid['fine_tunes']:,}", ""],
        ["compute seconds, alone / spent", f"{grid['asked_seconds']:,.0f} / {grid['seconds']:,.0f}", ""],
        ["wall seconds of the grid", f"{grid['wall_seconds']:,.0f}", ""],
        ["**sharing factor**", f"**{sharing:.2f}**", "3.5"],
        ["a point alone on the same engine, wall seconds on two cores", f"{alone:.1f} ({two['trials']} points)", ""],
        ["a point the paper's way, wall seconds on two cores", f"{paper:.1f} ({len(papers)} points)", ""],
        ["**engine factor**", f"**{paper / alone:.2f}**", "4.5"],
        ["**sharing x engine**", f"**{sharing * paper / alone:.1f}**", "12"],
        ["a point the paper's way over a point of the grid, wall", f"{paper / shared:.1f}", ""],
        ["overhead: (wall x cores - compute) / compute", f"{overhead:.1%}", "15%"],
        ["a trial that has nothing to compute, seconds", f"{known['wall_seconds'] / known['trials']:.2f}", "0.5"],
    ]
    taus = [
        ["Kendall's tau between", "`work`", "`wall`"],
        ["two at a time, one at a time", *(tau(two[clock], one[clock]) for clock in ("flops", "wall"))],
        [
            "in the shared grid, alone one at a time",
            *(tau([grid[clock][trial] for trial in chosen], one[clock]) for clock in ("flops", "wall")),
        ],
    ]
    same = all(abs(grid["drop"][trial] - drop) < 1e-9 for trial, drop in zip(chosen, two["drop"], strict=True))
    return f"""# A full grid with shared work

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; each search run once.

{table(figures)}

The {two["trials"]} points alone ended with {"the same drops as" if same else "OTHER DROPS THAN"} in the shared grid.
The {known["trials"]} trials that had nothing to compute took {known["wall_seconds"]:.0f} s, the start of two processes
included.

## How trials rank by pruning time

{table(taus)}

({two["trials"]} points; the work clock counts operations, so it cannot differ between the two.)

![drop and pruning time of the grid](shared_work.png)
"""


def tau(one: list[float], other: list[float]) -> str:
    """Of two rankings of the same trials."""
    return f"{kendalltau(one, other).statistic:.2f}"


def draw(rows: dict[str, Row], parts: list[Row], path: Path) -> None:
    """The grid's trials by time and drop; how many trials share each fine-tune."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    grid = rows["grid"]
    colours = [point["base_learning_rate"] for point in grid["points"]]
    left.scatter(grid["wall"], grid["drop"], c=colours, s=14)
    left.set_xlabel("pruning time alone (s)")
    left.set_ylabel("drop (points)")
    left.set_title(f"{grid['trials']} trials, coloured by base learning rate")
    sharers = np.bincount([row["segment"] for row in parts if row["fine_tune"]])
    right.hist(sharers[sharers > 0], bins=30)
    right.set_yscale("log")
    right.set_xlabel("trials that share a fine-tune")
    right.set_ylabel("fine-tunes")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--points", type=int, help="of the grid, to try this out [default: all 216]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.work, "shared_work")
    sample = ["--search.no-share-work", "--search.trials", str(min(SAMPLE, options.points or SAMPLE))]
    runs = {
        "grid": partial(search, options, "grid", *grid_size(options)),
        "two": partial(search, options, "two", *sample),
        "one": partial(search, options, "one", *sample, "--search.concurrent", "1"),
        "known": partial(known_again, options),
    }
    rows = {name: ledger.once({"run": name}, run) for name, run in runs.items()}
    points = point_log(options.work.resolve() / "shared_work" / "two", "ice").load()
    papers = [
        ledger.once({"run": "paper", "point": n}, partial(paper_point, options.shared, point, SHARE, EVAL_IMAGES))
        for n, point in enumerate(points[:PAPER_POINTS])
    ]
    parts = segments(options)
    write_parquet("shared_work_segments", parts)
    single = [row | {"drop": [row["drop"]]} for row in papers]  # as the searches' rows: a list of trials
    write_parquet("shared_work", [rows["grid"], rows["two"], rows["one"], rows["known"], *single])
    draw(rows, parts, RESULTS / "shared_work.png")
    (RESULTS / "shared_work.md").write_text(page(rows, papers))


if __name__ == "__main__":
    main()
