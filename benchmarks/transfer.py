"""Does a subsample's ranking of hyperparameters carry over to the full data? The premise of stage 1, tested.

    python benchmarks/transfer.py

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page)

ResNet-20, CIFAR-10 as JPEG, 60% of the filters of every block, one epoch per fine-tune, the operator in this process.
Eight points: every combination of the grid's two thetas, etas and base learning rates, with Delta, p and beta drawn
from it (seeded). Each is run on all 50,000 training images with 5,000 images deciding (the full result: drop over the
whole test split), and as stage 1 would run it: on 1, 2, 5 and 10% of the training images with 1,000 deciding, at each
batch size, for several draws of the subsample. Kendall's tau (b) of each ranking against the full result's, with a 90%
bootstrap interval over the eight points. Time is on the work clock (operations over one calibrated speed), which
neighbours on the machine cannot distort. Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from common import (
    PREPROCESSING,
    PUBLISHED,
    RESULTS,
    Ledger,
    Row,
    arguments,
    cifar10,
    command,
    dense_resnet20,
    images,
    machine,
    share,
    spread,
    table,
    write_parquet,
)
from scipy.stats import kendalltau

from ice_ray import IceHyperparameters, PruningData
from ice_ray.data.batches import Shard
from ice_ray.data.images import ImageSet
from ice_ray.engine.cost import calibrate_speed
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.snapshots import Snapshot
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.objective import normalized_cost
from ice_ray.objectives import Candidate, objective_named
from ice_ray.objectives.nearly_best import TOLERANCE_POINTS
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.records import PipelineState, Preparation
from ice_ray.training.evaluate import count_correct
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.precision import resolve
from ice_ray.trials.space import load_space

matplotlib.use("agg")
import matplotlib.pyplot as plt

FRACTIONS = (0.01, 0.02, 0.05, 0.1)
EVAL_IMAGES = 1000
HISTORY = (
    "The 128 runs on subsamples were made at commit 6c52be6 on two cores of an AMD EPYC, the eight on all data at "
    "9abdd05 (points 0 to 3) and 86c96e1 (4 to 7) on two cores of an Intel Xeon, all in bfloat16 with one thread, two "
    "side by side."
)
MEASURES = ("drop", "time", "cost")
CPU = torch.device("cpu")


def eight_points() -> list[IceHyperparameters]:
    """The corners of (theta, eta, LR_base), the other three drawn from the grid."""
    values = load_space("paper-cifar10").values
    random = np.random.default_rng(0)
    corners = itertools.product(
        values["accuracy_drop_threshold"], values["frozen_fraction"], values["base_learning_rate"]
    )
    rest = ("learning_rate_reduction", "midpoint_pruned_share", "steepness")
    return [IceHyperparameters(*corner, *(float(random.choice(values[name])) for name in rest)) for corner in corners]


class Setting:
    """One amount of data, batch size and draw: an executor whose preparation serves all eight points."""

    def __init__(self, shared: Path, fraction: float, batch_size: int, seed: int) -> None:
        dataset = cifar10(shared)
        roles = assign_roles(dataset, "holdout", 0)  # the same halves for every draw
        train, validation = roles.train, roles.validation
        if fraction < 1:
            train = subsample(dataset, train, round(fraction * len(train)), seed, "search train")
            validation = subsample(dataset, validation, EVAL_IMAGES, seed, "search decide")
        recipe = Recipe(batch_size=batch_size, precision=resolve("auto", CPU))
        data = PruningData(images(dataset, train), images(dataset, validation), PREPROCESSING)
        self.report = images(dataset, roles.test)
        self.executor = TorchExecutor(DenseNetwork(dense_resnet20(shared), (3, 32, 32)), data, recipe, seed, CPU)
        self.data = data
        self._preparation: Preparation | None = None

    def run(self, point: IceHyperparameters, folder: Path) -> Row:
        """The operator at one point: drop in points, operations, wall seconds, steps.

        Args:
            folder: keeps the last step, so that a run of hours that was interrupted goes on from there.
        """
        executor, pipeline = self.executor, IcePipeline(config=PUBLISHED, hyperparameters=point)
        if self._preparation is None:
            self._preparation = pipeline.prepare(executor, True)
        state, kept = pipeline.begin(executor), folder / "state.json"
        if kept.is_file():
            state = PipelineState.from_json(kept.read_text())
            executor.store.put(Snapshot.load(folder / f"{state.snapshot}.safetensors"))
        while not pipeline.is_done(executor, state):
            state = pipeline.advance(executor, state, self._preparation)
            folder.mkdir(parents=True, exist_ok=True)
            executor.commit(state.snapshot).save(folder / f"{state.snapshot}.safetensors")
            kept.write_text(state.to_json())
        return {
            "original": self._preparation.original_accuracy,
            "decide": state.accuracy,
            "report": self.accuracy_on_test(state.snapshot),
            "flops": sum(record.flops for record in state.records),
            "wall_seconds": state.pruning_seconds("wall", 1.0),
            "fine_tunes": sum(record.fine_tuned for record in state.records),
            "steps": [record.as_dict() for record in state.records],
        }

    def accuracy_on_test(self, snapshot: str) -> float:
        """Percent of the half of the test split that decides nothing."""
        return 100 * int(_correct(self.executor, snapshot, self.report)) / len(self.report)


def _correct(executor: TorchExecutor, snapshot: str, report: ImageSet) -> torch.Tensor:
    return count_correct(executor.module(snapshot), report, PREPROCESSING, executor.recipe.precision, Shard())[0]


def run_all(ledger: Ledger, options: argparse.Namespace, draws: dict[float, int], part: slice) -> None:
    """This part of everything that is not in the ledger yet: the subsamples first, the full data's points last."""
    shared, work, batch_sizes = options.shared, options.work, options.batch_sizes
    points = list(enumerate(eight_points()))
    plan = [(f, b, seed, points) for f in FRACTIONS for b in batch_sizes for seed in range(draws[f])][part]
    plan.append((1.0, 128, 0, points[part]))
    for fraction, batch_size, seed, its_points in plan:
        setting: Setting | None = None
        for index, point in its_points:
            key = {"fraction": fraction, "batch_size": batch_size, "draw": seed, "point": index}

            def run(point: IceHyperparameters = point, key: dict[str, Any] = key) -> Row:
                nonlocal setting
                setting = setting or Setting(shared, key["fraction"], key["batch_size"], key["draw"])
                folder = work / "transfer_steps" / "-".join(str(value) for value in key.values())
                return setting.run(point, folder) | {"hyperparameters": point.as_dict()}

            ledger.once(key, run)


def measured(rows: list[Row], fraction: float, batch_size: int, draw: int, speed: float) -> dict[str, np.ndarray]:
    """Per measure the eight points' values of one setting; empty where it is not complete."""
    own = {row["key"]["point"]: row for row in rows if _of(row) == (fraction, batch_size, draw)}
    if len(own) < 8:
        return {}
    ordered = [own[point] for point in range(8)]
    drops = np.array([row["original"] - row["decide"] for row in ordered])
    if fraction == 1.0:  # the full result: over the whole test split
        drops = np.array([row["original"] - (row["decide"] + row["report"]) / 2 for row in ordered])
    seconds = np.array([row["flops"] / speed for row in ordered])
    cost = np.array([normalized_cost(second, drop) for second, drop in zip(seconds, drops, strict=True)])
    return {"drop": drops, "time": seconds, "cost": cost}


def _of(row: Row) -> tuple[float, int, int]:
    return row["key"]["fraction"], row["key"]["batch_size"], row["key"]["draw"]


def interval(small: list[np.ndarray], full: np.ndarray) -> tuple[float, float, float]:
    """Mean tau over draws, and the 5th and 95th percentile over bootstrapped points."""
    random = np.random.default_rng(0)
    mean = float(np.mean([kendalltau(values, full).statistic for values in small]))
    resampled = []
    while len(resampled) < 1000:
        chosen = random.integers(0, len(full), len(full))
        taus = [kendalltau(values[chosen], full[chosen]).statistic for values in small]
        if np.isfinite(taus).all():
            resampled.append(np.mean(taus))
    return mean, float(np.quantile(resampled, 0.05)), float(np.quantile(resampled, 0.95))


def regret(values: dict[str, np.ndarray], full: dict[str, np.ndarray]) -> float:
    """Points of full-data drop that the `auto` choice of this setting gives away to the best point."""
    candidates = [Candidate(i, float(values["time"][i]), float(values["drop"][i])) for i in range(8)]
    return float(full["drop"][objective_named("auto").choose(candidates).index] - full["drop"].min())


def summarise(rows: list[Row], speed: float) -> list[dict[str, Any]]:
    """A line per fraction and batch size: tau and interval of each measure, regret, work in seconds."""
    full = measured(rows, 1.0, 128, 0, speed)
    if not full:
        return []
    lines = []
    for fraction, batch_size in sorted({_of(row)[:2] for row in rows if row["key"]["fraction"] < 1}):
        draws = sorted({_of(row)[2] for row in rows if _of(row)[:2] == (fraction, batch_size)})
        each = [values for draw in draws if (values := measured(rows, fraction, batch_size, draw, speed))]
        line: dict[str, Any] = {"fraction": fraction, "batch_size": batch_size, "draws": len(each)}
        line |= {measure: interval([values[measure] for values in each], full[measure]) for measure in MEASURES}
        line["regret"] = [regret(values, full) for values in each]
        line["seconds"] = float(np.mean([values["time"].sum() for values in each]))
        lines.append(line)
    return lines


def page(rows: list[Row], lines: list[dict[str, Any]], speed: float) -> str:
    """The report in Markdown."""
    head = ["share", "batch", "draws", "tau: drop", "tau: time", "tau: eq. 2", "regret (points)", "8 trials (work s)"]
    body = [
        [
            f"{line['fraction']:.0%}",
            str(line["batch_size"]),
            str(line["draws"]),
            *("{:.2f} [{:.2f}, {:.2f}]".format(*line[measure]) for measure in MEASURES),
            spread(line["regret"]),
            f"{line['seconds']:.0f}",
        ]
        for line in lines
    ]
    full = measured(rows, 1.0, 128, 0, speed)
    points = [["point", "theta", "eta", "LR", "Delta", "p", "beta", "drop (points)", "time (work s)", "eq. 2"]]
    for index, point in enumerate(eight_points()):
        values = [f"{value:g}" for value in list(point.as_dict().values())[:6]]
        results = [f"{full['drop'][index]:.2f}", f"{full['time'][index]:.0f}", f"{full['cost'][index]:.4f}"]
        points.append([str(index), *values, *results])
    return f"""# Does a subsample's ranking carry over to the full data?

`{command()}`

{__doc__.split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; work clock at {speed:.3g} operations a second. `auto` within {TOLERANCE_POINTS} points. {HISTORY}

{table([head, *body])}

Tau is the mean over draws; in brackets the bootstrap's 5th and 95th percentile. "Regret" is what the full-data drop of
the point that `auto` chooses there lies above the best point's, mean and standard deviation over draws.

## The full result (batch 128)

{table(points)}

![tau against share](transfer.png)
"""


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Tau of drop and of eq. 2 against the share of the data, a line per batch size."""
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(9.6, 3.2), sharey=True, layout="constrained")
    for panel, measure in zip(panels, MEASURES, strict=True):
        for number, batch_size in enumerate(sorted({line["batch_size"] for line in lines})):
            own = [line for line in lines if line["batch_size"] == batch_size]
            middle = np.array([line[measure] for line in own])
            errors = np.abs(middle[:, 1:].T - middle[:, 0])
            places = np.arange(len(own)) + 0.08 * number
            panel.errorbar(places, middle[:, 0], errors, marker="o", capsize=3, label=f"batch {batch_size}")
            panel.set_xticks(np.arange(len(own)), [f"{line['fraction']:.0%}" for line in own])
        panel.axhline(0, color="0.6", lw=0.8)
        panel.set_title({"drop": "drop", "time": "time", "cost": "eq. 2"}[measure])
        panel.set_xlabel("share of the training images")
    panels[0].set_ylabel("Kendall's tau with the full result")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, parts=True)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, suffix = share(options.part)
    ledger = Ledger(options.work, "transfer", suffix)

    def calibrate() -> Row:
        network = DenseNetwork(dense_resnet20(options.shared), (3, 32, 32))
        precision = resolve("auto", CPU)
        return {"speed": calibrate_speed(network.build(CPU), network.traces, (3, 32, 32), CPU, precision, 128, 5.0)}

    speed = ledger.once({"calibration": options.threads}, calibrate)["speed"]
    draws = {0.01: 3, 0.02: 3, 0.05: 1, 0.1: 1}
    run_all(ledger, options, draws, part)
    if suffix:
        return
    rows = [row for row in ledger.rows if "point" in row["key"]]
    lines = summarise(rows, speed)
    write_parquet("transfer", rows)
    (RESULTS / "transfer.md").write_text(page(rows, lines, speed))
    draw(lines, RESULTS / "transfer.png")


if __name__ == "__main__":
    main()
