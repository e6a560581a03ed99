"""One option of `ice_ray.prune` at a time, everything else equal: criteria, what is frozen, repairs, targets.

    python benchmarks/options.py criteria|freezing|repairs|allocation|latency [--ratios 0.6 0.7 0.8] [--seeds 0 1 2]

A trained ResNet-20 (or --depth 56) on CIFAR-10, in this process. `criteria` (the paper's Fig. 3): which filters go
first, and `freezing`: how a layer's weight change is measured, which decides what is held fixed; both without repairs,
by the paper's pipeline with theta .5, eta .3 (`freezing`: .3 and .9), LR .005, Delta 8e-4, p .1, beta 40, and an epoch
per fine-tune. `repairs`: nothing is trained as a whole; the kind of repair, the criterion, and how many calibration
images it looks at. `allocation`: likewise, how the target that leaves the share --ratios of the multiply-adds is shared
out, and how long all layers are reconstructed together, from 1,000 calibration images; seconds have the allocation in
them. `latency`: likewise, where the target is the share --ratios of the latency in ONNX Runtime (one thread, batch 64);
beside it what is left of that in the exported file, measured again, and of the multiply-adds. Of the training images as
many as --train-images, equally of every class. One half of the test images decides, the other half gives the accuracies
of the table, and in parentheses both. Seconds are the pruning time on the wall's clock: measure on a machine that does
nothing else; those of the processor are of everything that `ice_ray.prune` does. Variants take turns, seed by seed.
Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cifar import MEAN, STD, accuracy, cifar10, part
from common import Ledger, Row, arguments, command, machine, rules, spread, table, write_page
from resnet import trained
from torch import nn

import ice_ray

AS_PUBLISHED = {"criterion": "l1", "calibration_images": 1000, "repair": "none", "decision_error": 0.0}
CRITERIA = ("l1", "l2", "bn-scale", "taylor", "mean-activation", "entropy", "entropy-densities", "residual", "random")
REPAIRS = ("none", "bn", "least-squares", "reconstruction")


def point(frozen: float = 0.3) -> ice_ray.IceHyperparameters:
    """Of the paper's grid."""
    return ice_ray.IceHyperparameters(0.5, frozen, 0.005, 8e-4, 0.1, 40)


def freezing(measure: Any, frozen: float) -> dict[str, Any]:
    """Keywords of a run that holds fixed what changes least by this measure."""
    return AS_PUBLISHED | {"hyperparameters": point(frozen), "freeze": ice_ray.FreezeConfig(change=measure)}


def repairing(criterion: str, repair: str, images: int) -> dict[str, Any]:
    """Keywords of a run that trains nothing as a whole."""
    return {"criterion": criterion, "repair": repair, "calibration_images": images}


QUESTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "criteria": {name: AS_PUBLISHED | {"criterion": name, "hyperparameters": point()} for name in CRITERIA},
    "freezing": {
        f"{measure}, eta {frozen:g}": freezing(measure, frozen)
        for measure, frozen in itertools.product(("l1", "l2", "norm-difference"), (0.3, 0.9))
    },
    "repairs": {
        f"{repair}, filters by {criterion}, {images} images": repairing(criterion, repair, images)
        for criterion, repair, images in (
            *itertools.product(("l1", "residual"), REPAIRS, (500,)),
            *itertools.product(("residual",), REPAIRS[2:], (125, 2000)),
        )
    },
    "allocation": {
        f"{allocate}, {joint:g} joint epochs": repairing("residual", "reconstruction", 1000)
        | {"allocate": allocate, "joint_epochs": joint}
        for allocate, joint in itertools.product(("uniform", "error"), (0.0, 10.0))
    },
    "latency": {
        f"{allocate}, {'' if coupled else 'no '}coupled channels": repairing("residual", "reconstruction", 1000)
        | {"allocate": allocate, "prune": ice_ray.LayerwisePruneConfig(coupled=coupled)}
        for allocate, coupled in (("uniform", False), ("error", False), ("error", True))
    },
}
BUDGETS = {"allocation": "macs", "latency": "onnx-latency"}
"""What --ratios are the share of that is left; else of the filters of every block that go."""


def run(
    question: str,
    keywords: dict[str, Any],
    ratio: float,
    seed: int,
    data: Path,
    weights: Path,
    depth: int,
    train_images: int,
) -> Row:
    """One run: accuracies in percent, pruning time in seconds, what is left."""
    train, test = cifar10(data, "train"), cifar10(data, "test")
    rows, decide = part(train[1], train_images, seed), part(test[1], len(test[1]) // 2, 0)
    rest = torch.ones(len(test[1]), dtype=torch.bool).index_fill(0, decide, False)
    model, preprocessing = trained(weights, depth), ice_ray.Preprocessing(MEAN, STD, pad=4, flip=True)
    images, deciding = (train[0][rows], train[1][rows]), (test[0][decide], test[1][decide])
    budget = BUDGETS.get(question)
    amount = {"ratio": ratio} if budget is None else {"target": f"{budget}={ratio:g}"}
    begun = time.process_time()
    result = ice_ray.prune(
        model, images, deciding, seed=seed, preprocessing=preprocessing, progress=False, **amount, **keywords
    )
    processor = time.process_time() - begun
    left = {"macs": result.macs / result.original_macs}
    if budget == "onnx-latency":
        left["latency"] = latency_left(model, result.model)
    return {
        "left": left,
        "dense": accuracy(model, test[0][rest], test[1][rest]),
        "accuracy": accuracy(result.model, test[0][rest], test[1][rest]),
        "whole": accuracy(result.model, *test),
        "processor": processor,
        "seconds": result.pruning_seconds,
    }


def latency_left(dense: nn.Module, pruned: nn.Module) -> float:
    """Of the time that a batch of 64 takes in ONNX Runtime on one thread; both exported, in turn, the median of 31."""
    import onnxruntime

    images = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    sessions, shares = [], list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for model in (dense, pruned):
            file = str(Path(folder) / "model.onnx")
            torch.onnx.export(model.eval(), (images,), file, dynamic_shapes=({0: "images"},), verbose=False)
            sessions.append(onnxruntime.InferenceSession(file, settings))
    for _ in range(36):
        seconds = []
        for session in sessions:
            begun = time.thread_time()
            session.run(None, {session.get_inputs()[0].name: images.numpy()})
            seconds.append(time.thread_time() - begun)
        shares.append(seconds[1] / seconds[0])
    return statistics.median(shares[5:])


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, default=Path("data/resnet20-12fca82f.th"))
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.6, 0.7, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger, variants = Ledger(options.work, f"options-{options.question}"), QUESTIONS[options.question]
    found: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for seed, ratio, (name, keywords) in itertools.product(options.seeds, options.ratios, variants.items()):
        key = {
            "variant": name,
            "depth": options.depth,
            "ratio": ratio,
            "seed": seed,
            "train_images": options.train_images,
        }
        own = (options.data, options.weights, options.depth, options.train_images)
        asked = (options.question, keywords, ratio, seed, *own)
        found[name, ratio].append(ledger.once(key, partial(run, *asked)))
    heads = [", %", ", s", ", processor s", *(f", {of} left" for of in next(iter(found.values()))[0].get("left", ()))]
    lines = [[options.question, *(f"{ratio:g}{what}" for ratio in options.ratios for what in heads)]]
    for name in variants:
        line = [f"`{name}`"]
        for ratio in options.ratios:
            column = {what: [row[what] for row in found[name, ratio]] for what in found[name, ratio][0]}
            line += [f"{spread(column['accuracy'])} ({spread(column['whole'])})"]
            line += [spread(column[what], 1) for what in ("seconds", "processor")]
            line += [spread([each[of] for each in column["left"]], 3) for of in column.get("left", [{}])[0]]
        lines.append(line)
    (dense, *_) = (row["dense"] for rows in found.values() for row in rows)
    write_page(
        options.results,
        f"options-{options.question}-resnet{options.depth}.md",
        f"""# One option at a time: {options.question}

`{command()}`

{rules(__doc__)}

ResNet-{options.depth}; {machine()}; --threads {options.threads}; seeds {options.seeds}; training images:
{options.train_images:,}. Accuracy in percent on the test images (dense {dense:.2f}), and seconds.

{table(lines)}
""",
    )


if __name__ == "__main__":
    main()
