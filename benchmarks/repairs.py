"""How far repairs go while the network is not trained: which kind, by which criterion, from how many images.

    python benchmarks/repairs.py [--threads 1] [--models cifar-resnet20 cifar-resnet56]

There is no fine-tune and no retraining. CIFAR-10 as JPEG; filters go step by step, each removal is repaired as said,
and the accuracy after every step is over 2,000 images of one half of the test split (the other half at the end).
Seconds are those that the processor spent on choosing filters, removing and repairing, without the measurements.
Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib
import torch
from common import RESULTS, Ledger, Row, arguments, command, machine, table, write_parquet
from contest import Contestant, Images, cached_images, executor_of, plan_of
from settings import small

from ice_ray.engine.actions import Measure
from ice_ray.ingest.roles import subsample
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.layerwise import choose_removal, removal_action

matplotlib.use("agg")
import matplotlib.pyplot as plt

MODELS = ("cifar-resnet20", "cifar-resnet56")
KINDS = ("none", "bn", "least-squares", "reconstruction")


def variants(model: str) -> list[dict[str, Any]]:
    """Everything that is run for a model."""
    base = {"model": model, "ratio": 0.6, "criterion": "residual", "kind": "least-squares", "images": 500, "seed": 0}
    found = [base | {"criterion": criterion, "kind": kind} for criterion in ("l1", "residual") for kind in KINDS]
    for kind in KINDS[2:]:
        if model == MODELS[0]:
            found += [base | {"kind": kind, "images": images} for images in (125, 250, 1000, 2000)]
            found += [base | {"kind": kind, "seed": seed} for seed in (1, 2)]
        found += [base | {"kind": kind, "ratio": ratio} for ratio in (0.7, 0.8)]
    return found


def run(options: argparse.Namespace, decoded: Images, key: dict[str, Any]) -> Row:
    """One variant: accuracies in percent, seconds."""
    setting = small(options.shared, key["model"])
    words = ("--criterion", key["criterion"], "--repair", key["kind"])
    plan = plan_of(setting, Contestant("", words), key["ratio"], key["seed"])
    dataset = plan.dataset
    train = decoded(dataset, plan.replay_rows()[0])
    validation = decoded(dataset, subsample(dataset, plan.roles.validation, 2000, key["seed"], "benchmark decide"))
    executor = executor_of(plan, plan.replay_settings, train, validation)
    config = IceConfig(key["ratio"], criterion=key["criterion"], calibration_images=key["images"], repair=key["kind"])
    original = executor.run(executor.root, Measure()).value.accuracy
    snapshot, seconds, accuracies = executor.root, 0.0, []
    for step in executor.network.steps:
        began = time.process_time()
        chosen, _ = choose_removal(executor, snapshot, step.number, config)
        removed = executor.run(snapshot, removal_action(chosen, step.number, config))
        snapshot = removed.snapshot
        seconds += time.process_time() - began
        accuracies.append(executor.run(snapshot, Measure()).value.accuracy)
    report = executor.accuracy(executor.module(snapshot), decoded(dataset, plan.roles.test))
    return {"original": original, "accuracies": accuracies, "report": report, "seconds": seconds}


def page(rows: list[Row]) -> str:
    """The report in Markdown."""
    head = ["model", "ratio", "criterion", "repair", "images", "seed", "half of the steps", "all", "test images", "s"]
    body = [
        [
            key["model"].removeprefix("cifar-"),
            f"{key['ratio']:.0%}",
            f"`{key['criterion']}`",
            key["kind"],
            str(key["images"]),
            str(key["seed"]),
            f"{row['accuracies'][len(row['accuracies']) // 2]:.1f}",
            f"{row['accuracies'][-1]:.1f}",
            f"{row['report']:.2f}",
            f"{row['seconds']:.1f}",
        ]
        for row in rows
        for key in [row["key"]]
    ]
    return f"""# How far repairs go while the network is not trained

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; one run a row. Accuracy in percent.

{table([head, *body])}

![accuracy after every step](repairs.png)
"""


def draw(rows: list[Row], models: Sequence[str]) -> None:
    """Accuracy over the steps, a line per kind and criterion."""
    size = (1 + 4.5 * len(models), 4)
    figure, (panels,) = plt.subplots(1, len(models), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, model in zip(panels, models, strict=True):
        own = [row for row in rows if row["key"]["model"] == model and row["key"]["ratio"] == 0.6]
        for row in own:
            key = row["key"]
            if (key["images"], key["seed"]) == (500, 0):
                style = "-" if key["criterion"] == "residual" else "--"
                colour = f"C{KINDS.index(key['kind'])}"
                values = [row["original"], *row["accuracies"]]
                axes.plot(values, style, color=colour, label=f"{key['criterion']}, {key['kind']}")
        axes.set_title(f"{model.removeprefix('cifar-')}, 60%", fontsize=10)
        axes.set_xlabel("pruning step")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (%)")
    panels[0].legend(fontsize=8)
    figure.savefig(RESULTS / "repairs.png", dpi=120)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger, decoded = Ledger(options.work, "repairs"), cached_images()
    keys = [key for model in options.models for key in variants(model)]
    rows = [ledger.once(key, partial(run, options, decoded, key)) for key in keys]
    write_parquet("repairs", rows)
    (RESULTS / "repairs.md").write_text(page(rows))
    draw(rows, options.models)


if __name__ == "__main__":
    main()
