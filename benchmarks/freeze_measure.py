"""Which layers to freeze: the three measures of weight change, on the same engine, images and hyperparameters.

    python benchmarks/freeze_measure.py --shared ../shared --seeds 0 1 2

ResNet-20, 60% of the filters, 5,000 stratified CIFAR-10 training images, one epoch per fine-tune, the operator in this
process on two threads; theta .5, LR .005, Delta 8e-4, p .1, beta 40, eta as given. Half of the test split decides, the
other half reports; a default is chosen on the first. Writes freeze_measure.md and .json to `benchmarks/results/`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import torch
from common import PREPROCESSING, PUBLISHED, RESULTS, arguments, cifar10, dense_resnet20, images, spread, table

from ice_ray import IceHyperparameters, PruningData, prune
from ice_ray.data.batches import Shard
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.pipelines.ice import FreezeConfig
from ice_ray.pruning.freezing import WeightChange
from ice_ray.training.evaluate import count_correct

FRACTIONS = (0.3, 0.9)


def run(shared: Path, change: WeightChange, fraction: float, seed: int) -> dict[str, Any]:
    """One run: accuracies in percent, PT in seconds."""
    dataset = cifar10(shared)
    roles = assign_roles(dataset, "holdout", seed)
    train = images(dataset, subsample(dataset, roles.train, 5000, seed, "benchmark"))
    validation, report = images(dataset, roles.validation), images(dataset, roles.test)
    point = IceHyperparameters(0.5, fraction, 0.005, 8e-4, 0.1, 40)
    data, freeze = PruningData(train, validation, PREPROCESSING), FreezeConfig(change=change)
    result = prune(
        dense_resnet20(shared),
        data,
        ratio=0.6,
        hyperparameters=point,
        config=PUBLISHED,
        freeze=freeze,
        seed=seed,
        device="cpu",
    )
    correct = int(count_correct(result.model, report, PREPROCESSING, "fp32", Shard())[0])
    return {
        "measure": change,
        "frozen_fraction": fraction,
        "seed": seed,
        "decide": result.accuracy,
        "report": 100 * correct / len(report),
        "pruning_seconds": result.pruning_seconds,
        "steps": [record.as_dict() for record in result.records],
    }


def page(runs: list[dict[str, Any]], cores: int | None) -> str:
    """The table in Markdown."""
    lines = [["measure", "eta", "validation images (%)", "test images (%)", "PT (s)"]]
    for change in get_args(WeightChange):
        for fraction in FRACTIONS:
            own = [run for run in runs if (run["measure"], run["frozen_fraction"]) == (change, fraction)]
            cells = [spread([run[key] for run in own]) for key in ("decide", "report", "pruning_seconds")]
            lines.append([f"`{change}`", f"{fraction:g}", *cells])
    seeds = len({run["seed"] for run in runs})
    repeats = "one seed" if seeds == 1 else f"mean and standard deviation over {seeds} seeds"
    return f"""# Which layers to freeze

`python benchmarks/freeze_measure.py --seeds {" ".join(str(s) for s in sorted({run["seed"] for run in runs}))}`

{__doc__.split("    python")[1].split(chr(10), 2)[2].strip()}

{cores} CPU cores, bf16 where the CPU has it, torch {torch.__version__}; {repeats}.

{table(lines)}
"""


def main() -> None:
    """Run everything and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = []
    for seed in options.seeds:
        for fraction in FRACTIONS:
            for change in get_args(WeightChange):
                runs.append(run(options.shared, change, fraction, seed))
                print({key: value for key, value in runs[-1].items() if key != "steps"}, flush=True)
    (RESULTS / "freeze_measure.md").write_text(page(runs, os.cpu_count()))
    (RESULTS / "freeze_measure.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
