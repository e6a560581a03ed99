"""Which filters to remove: every criterion at every ratio, on the same engine (the paper's Fig. 3).

    python benchmarks/criteria.py

(or `--threads 1 --part 0/2` and `--part 1/2` side by side, then once more without `--part` for the page)

ResNet-20, CIFAR-10 as JPEG, 5,000 stratified training images, one epoch per fine-tune, the operator in this process;
theta .5, eta .3, LR .005, Delta 8e-4, p .1, beta 40. 2,000 images of one half of the test split decide, the other
half reports. Criteria that look at data see 1,000 of the training images. Also the accuracy after each step's removal,
before any fine-tuning of that step. What a run took is counted in operations (scoring, measuring and fine-tuning),
which neighbours on the machine cannot distort. Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import itertools
from functools import partial
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

from ice_ray import IceHyperparameters, ImageSet, PruningData, prune
from ice_ray.data.batches import Shard
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.pruning.criteria import CRITERIA
from ice_ray.training.evaluate import count_correct

matplotlib.use("agg")
import matplotlib.pyplot as plt

POINT = IceHyperparameters(0.5, 0.3, 0.005, 8e-4, 0.1, 40)
RATIOS = (0.6, 0.7, 0.8)


def run(data: PruningData, report: ImageSet, shared: Path, criterion: str, ratio: float, seed: int) -> Row:
    """One run: accuracies in percent, its steps' records."""
    model = dense_resnet20(shared)
    result = prune(
        model, data, ratio=ratio, hyperparameters=POINT, config=PUBLISHED, criterion=criterion, seed=seed, device="cpu"
    )
    correct = int(count_correct(result.model, report, PREPROCESSING, "fp32", Shard())[0])
    return {
        "original": result.original_accuracy,
        "decide": result.accuracy,
        "report": 100 * correct / len(report),
        "steps": [record.as_dict() for record in result.records],
    }


def run_all(ledger: Ledger, shared: Path, seeds: list[int], part: slice) -> None:
    """This part of everything that is not in the ledger yet."""
    dataset = cifar10(shared)
    plan = list(itertools.product(RATIOS, CRITERIA))
    for seed in seeds:
        roles = assign_roles(dataset, "holdout", seed)
        train = images(dataset, subsample(dataset, roles.train, 5000, seed, "benchmark"))
        validation = images(dataset, subsample(dataset, roles.validation, 2000, seed, "benchmark decide"))
        data, report = PruningData(train, validation, PREPROCESSING), images(dataset, roles.test)
        for ratio, criterion in plan[part]:
            key = {"criterion": criterion, "ratio": ratio, "seed": seed}
            ledger.once(key, partial(run, data, report, shared, criterion, ratio, seed))


def lost(row: Row) -> float:
    """Points that the removals cost, before fine-tuning: mean over the steps."""
    return float(np.mean([step["accuracy_before"] - step["accuracy_after_pruning"] for step in row["steps"]]))


def page(rows: list[Row]) -> str:
    """The report in Markdown."""
    seeds = {row["key"]["seed"] for row in rows}
    repeats = "one seed" if len(seeds) == 1 else f"mean and standard deviation over {len(seeds)} seeds"
    parts = [
        ["criterion", *(f"{ratio:.0%}" for ratio in RATIOS), "points lost per removal (60%)", "10^12 operations (60%)"]
    ]
    for criterion in CRITERIA:
        own = {ratio: [row for row in rows if _key(row) == (criterion, ratio)] for ratio in RATIOS}
        first = own[RATIOS[0]]
        cells = [spread([row["report"] for row in own[ratio]]) for ratio in RATIOS]
        cells += [spread([lost(row) for row in first])]
        cells += [spread([sum(step["flops"] for step in row["steps"]) / 1e12 for row in first])]
        parts.append([f"`{criterion}`", *cells])
    dense = spread([rows[0]["original"]])
    return f"""# Which filters to remove

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; {repeats}. Accuracy in percent on the test images (dense: {dense} on the validation images).

{table(parts)}

![accuracy by criterion and ratio](criteria.png)
"""


def _key(row: Row) -> tuple[str, float]:
    return row["key"]["criterion"], row["key"]["ratio"]


def draw(rows: list[Row], path: Path) -> None:
    """A line per criterion over the ratios."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, criterion in enumerate(CRITERIA):
        means = [np.mean([row["report"] for row in rows if _key(row) == (criterion, ratio)]) for ratio in RATIOS]
        marker: Any = "osD^vP*X"[number % 8]
        axes.plot(RATIOS, means, marker=marker, ls="--" if criterion == "random" else "-", label=criterion)
    axes.set_xticks(RATIOS, [f"{ratio:.0%}" for ratio in RATIOS])
    axes.set_xlabel("filters removed from every block (ResNet-20, CIFAR-10, 5,000 training images)")
    axes.set_ylabel("accuracy on the test images (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, parts=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    part, suffix = share(options.part)
    ledger = Ledger(options.work, "criteria", suffix)
    run_all(ledger, options.shared, options.seeds, part)
    if suffix:
        return
    rows = [row for row in ledger.rows if row["key"]["seed"] in options.seeds and row["key"]["criterion"] in CRITERIA]
    write_parquet("criteria", rows)
    (RESULTS / "criteria.md").write_text(page(rows))
    draw(rows, RESULTS / "criteria.png")


if __name__ == "__main__":
    main()
