"""How much each layer's weights change at every step, and whether layers keep their order (the paper's Fig. 2).

    python benchmarks/weight_change.py

Freezing ranks the layers once, by a probe after the first step; that is right only if later steps rank them alike. Here
every step (60% of its filters) is followed by one epoch with nothing frozen at learning rate 1e-3, and each freezable
layer's change is measured three ways. ResNet-20 with its trained weights on 5,000 stratified CIFAR-10 training
images a step; MobileNetV2 (CIFAR form) on 2,500, its dense weights trained here first (two epochs of the 50,000, SGD,
linear from .05 to 0: far from converged). Spearman's rank correlation between the probe's ranking (step 1) and each
later step's. Finished parts are kept below --work and not redone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import safetensors.torch
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
    table,
    write_parquet,
)
from scipy.stats import spearmanr
from torch import nn

from ice_ray import PruningData
from ice_ray.data.images import ImageSet
from ice_ray.engine.actions import CompareWeights, FineTune, Measure, Prune
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.files import write_tensors
from ice_ray.ingest.datasets import Dataset
from ice_ray.ingest.roles import Roles, assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.layerwise import choose_removal
from ice_ray.pruning.freezing import WeightChange
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.training.precision import resolve

matplotlib.use("agg")
import matplotlib.pyplot as plt

CPU = torch.device("cpu")
RATE, DENSE_RATE, DENSE_EPOCHS = 1e-3, 0.05, 2
MEASURES: tuple[WeightChange, ...] = ("l1", "l2", "norm-difference")
IMAGES = {"cifar-resnet20": 5000, "cifar-mobilenetv2": 2500}


def dense_mobilenet(work: Path, train: ImageSet) -> nn.Module:
    """Trained here, once."""
    path = work / "mobilenetv2.safetensors"
    model = DenseNetwork(ModelSpec("cifar-mobilenetv2", 10).build(), train.image_shape).build(CPU)
    if path.is_file():
        model.load_state_dict(safetensors.torch.load_file(path))
        return model
    recipe = Recipe(options=FineTuneConfig(distil=False), precision=resolve("auto", CPU))
    fine_tune(
        model, train, PREPROCESSING, recipe, lambda done: DENSE_RATE * (1 - done), DENSE_EPOCHS, (0, "dense mobilenet")
    )
    write_tensors(path, model.state_dict())
    return model


def dense_model(name: str, shared: Path, work: Path, dataset: Dataset, roles: Roles) -> nn.Module:
    """The dense model of that name."""
    if name == "cifar-resnet20":
        return dense_resnet20(shared)
    return dense_mobilenet(work, images(dataset, roles.train))


def run(name: str, shared: Path, work: Path) -> Row:
    """Every step's changes: {measure: [{layer: change} per step]}, and its accuracies in percent."""
    dataset = cifar10(shared)
    roles = assign_roles(dataset, "holdout", 0)
    network = DenseNetwork(dense_model(name, shared, work, dataset, roles), (3, 32, 32))
    train = images(dataset, subsample(dataset, roles.train, IMAGES[name], 0, "benchmark"))
    validation = images(dataset, subsample(dataset, roles.validation, 2000, 0, "benchmark decide"))
    recipe = Recipe(precision=resolve("auto", CPU))
    executor = TorchExecutor(network, PruningData(train, validation, PREPROCESSING), recipe, 0, CPU)
    snapshot = executor.root
    row: Row = {
        "original": executor.run(snapshot, Measure()).value.accuracy,
        "accuracies": [],
        "layers": network.freezable,
    }
    row |= {measure: [] for measure in MEASURES}
    for step in network.steps:
        chosen, _ = choose_removal(executor, snapshot, step.number, PUBLISHED)
        pruned = executor.run(snapshot, Prune(chosen)).snapshot
        executor.commit(pruned)
        snapshot = executor.run(pruned, FineTune(("step", step.number), RATE, 1, "constant", ())).snapshot
        for measure in MEASURES:
            changes = executor.run(snapshot, CompareWeights(pruned, measure)).value
            row[measure].append([changes[layer] for layer in network.freezable])
        row["accuracies"].append(executor.run(snapshot, Measure()).value.accuracy)
        executor.store.keep_only(())
        print(f"{name} step {step.number}/{len(network.steps)}: {row['accuracies'][-1]:.2f}%", flush=True)
    return row


def correlations(row: Row, measure: str) -> np.ndarray:
    """(steps, steps) Spearman's rank correlation of the layers' changes."""
    return np.atleast_2d(spearmanr(np.array(row[measure]), axis=1).statistic)


def summary(rows: list[Row]) -> list[list[str]]:
    """A line per model and measure."""
    lines = [
        [
            "model",
            "measure",
            "with the probe's: next step",
            "middle step",
            "last step",
            "mean over steps",
            "lowest",
            "any two steps, mean",
        ]
    ]
    for row in rows:
        for measure in MEASURES:
            table_ = correlations(row, measure)
            probe = table_[0, 1:]
            pairs = table_[np.triu_indices(len(table_), 1)]
            values = [probe[0], probe[len(probe) // 2], probe[-1], probe.mean(), probe.min(), pairs.mean()]
            lines.append([row["key"]["model"], f"`{measure}`", *(f"{value:.2f}" for value in values)])
    return lines


def page(rows: list[Row]) -> str:
    """The report in Markdown."""
    accuracies = "\n\n".join(
        f"{row['key']['model']}: dense {row['original']:.1f}%, after each step "
        + ", ".join(f"{accuracy:.1f}" for accuracy in row["accuracies"])
        for row in rows
    )
    return f"""# Does one ranking of the layers hold for all steps?

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}; one seed.

## Spearman's rank correlation of the layers' weight changes

{table(summary(rows))}

## Accuracy on 2,000 of the validation images

{accuracies}

![weight change per layer and step](weight_change.png)
"""


def draw(rows: list[Row], path: Path) -> None:
    """Per model the changes as a map of layers by steps, for the text's measure and for the size-free one."""
    figure, panels = plt.subplots(len(rows), 2, figsize=(11, 4 * len(rows)), layout="constrained", squeeze=False)
    for row, line in zip(rows, panels, strict=True):
        for panel, measure in zip(line, ("l1", "l2"), strict=True):
            values = np.array(row[measure]).T
            layers, steps = values.shape
            extent = (0.5, steps + 0.5, layers + 0.5, 0.5)  # both count from 1, as everywhere
            shown = panel.imshow(values, aspect="auto", cmap="viridis", norm="log", extent=extent)
            panel.set_title(f"{row['key']['model']}, {measure}")
            panel.set_xlabel("pruning step")
            panel.set_ylabel("layer, shallow to deep")
            figure.colorbar(shown, ax=panel, label="normalised weight change")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.work, "weight_change")
    rows = [ledger.once({"model": name}, partial(run, name, options.shared, options.work)) for name in options.models]
    write_parquet("weight_change", rows)
    (RESULTS / "weight_change.md").write_text(page(rows))
    draw(rows, RESULTS / "weight_change.png")


if __name__ == "__main__":
    main()
