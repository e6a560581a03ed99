"""A ladder of targets in one run of `ice_ray.prune` against a run for each of them.

    python benchmarks/ladder.py [--shares 0.8 0.6 0.5 0.387] [--seeds 0 1 2]

A trained ResNet-20 (or --depth 56) on CIFAR-10, in this process' children: every run is a process of its own, and its
processor seconds are those of the whole process, reading the images included, on one thread. Nothing is trained as a
whole; calibration images are --train-images training images, equally of every class, labels not looked at. Accuracy is
over all test images, on which nothing is decided. Finished runs are kept below --work and not redone.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from cifar import MEAN, STD, accuracy, cifar10, part
from common import Ledger, Row, arguments, command, machine, rules, spread, table, write_page
from resnet import trained

import ice_ray


def run(target: str, seed: int, options: list[str]) -> Row:
    """One run in a process of its own: accuracies in percent, by rung, and its processor seconds."""
    words = [sys.executable, __file__, *options, "--alone", target, "--seeds", str(seed)]
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    before = _processor_seconds(resource.RUSAGE_CHILDREN)
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=own).stdout
    found: Row = json.loads(said.splitlines()[-1])
    spent = _processor_seconds(resource.RUSAGE_CHILDREN) - before - found.pop("assessing")
    return found | {"seconds": spent}


def prune(target: str, seed: int, data: Path, weights: Path, depth: int, train_images: int) -> Row:
    """The run itself."""
    torch.set_num_threads(1)
    train, test = cifar10(data, "train"), cifar10(data, "test")
    rows = part(train[1], train_images, seed)
    result = ice_ray.prune(
        trained(weights, depth),
        (train[0][rows], train[1][rows]),
        test,
        target=target,
        seed=seed,
        preprocessing=ice_ray.Preprocessing(MEAN, STD, pad=4, flip=True),
        calibration_images=train_images,
        progress=False,
    )
    before = _processor_seconds(resource.RUSAGE_SELF)
    found: Row = {
        "accuracies": [accuracy(rung.model, *test) for rung in result.rungs],
        "macs": [rung.macs / rung.original_macs for rung in result.rungs],
    }
    return found | {"assessing": _processor_seconds(resource.RUSAGE_SELF) - before}


def _processor_seconds(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, default=Path("data/resnet20-12fca82f.th"))
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.6, 0.5, 0.387])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-images", type=int, default=1000)
    parser.add_argument("--alone", help="print one run of this target, and end")
    asked = parser.parse_args()
    own = (asked.data, asked.weights, asked.depth, asked.train_images)
    if asked.alone is not None:
        print(json.dumps(prune(asked.alone, asked.seeds[0], *own)))
        return
    names = ("--data", "--weights", "--depth", "--train-images")
    options = [word for name, value in zip(names, own, strict=True) for word in (name, str(value))]
    ledger, shares = Ledger(asked.work, "ladder"), [f"{share:g}" for share in asked.shares]

    def once(target: str, seed: int) -> Row:
        key = {"target": target, "seed": seed, "depth": asked.depth, "train_images": asked.train_images}
        return ledger.once(key, lambda: run(target, seed, options))

    ladders = [once(f"macs={','.join(shares)}", seed) for seed in asked.seeds]
    alone = {share: [once(f"macs={share}", seed) for seed in asked.seeds] for share in shares}
    lines = [["share of the multiply-adds", "a run alone, %", "rung, %", "difference", "a run alone, s"]]
    for rung, share in enumerate(shares):
        pairs = [
            (one["accuracies"][0], ladder["accuracies"][rung])
            for one, ladder in zip(alone[share], ladders, strict=True)
        ]
        singles, rungs = zip(*pairs, strict=True)
        difference = statistics.mean(rungs) - statistics.mean(singles)
        seconds = spread([one["seconds"] for one in alone[share]], 1)
        lines.append([share, spread(singles), spread(rungs), f"{difference:+.2f}", seconds])
    several = [sum(alone[share][place]["seconds"] for share in shares) for place in range(len(asked.seeds))]
    one = [ladder["seconds"] for ladder in ladders]
    write_page(
        asked.results,
        f"ladder-resnet{asked.depth}.md",
        f"""# A ladder against a run for each rung

`{command()}`

{rules(__doc__)}

ResNet-{asked.depth}; {machine()}; seeds {asked.seeds}. Processor seconds of the ladder: {spread(one, 1)}; of
{len(shares)} runs: {spread(several, 1)}; that is {statistics.mean(one) / statistics.mean(several):.2f} of them.

{table(lines)}
""",
    )


if __name__ == "__main__":
    main()
