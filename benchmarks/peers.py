"""Other tools beside ours: the same network, images, multiply-adds, training, evaluation and clock.

    python benchmarks/peers.py [--tools ice_ray Torch-Pruning] [--epochs 1 4 --images 5000] [--seeds 0 1 2]

Each tool prunes a trained ResNet-20 (or --depth 56 --share 0.382) on CIFAR-10 by its own documented way, to just below
--share of the multiply-adds. Then all go through the same: nothing; batch-norm statistics from 1,000 images; or, for
each of --epochs, SGD on --images training images at each of --rates along a cosine, with --distil from the dense
network's answers as well. Seconds are the processor's, on one thread, from the dense network in memory to what is
scored: pruning and training; not in them are imports, reading the images, evaluation, and the settings and rates that
were tried and lost, for any tool. One half of the test images decides which setting and rate stand for a tool, the
other half gives the accuracies, and in parentheses both. In Torch-Pruning filters inside of blocks go, as its
`ignored_layers` says: it cannot follow shortcuts that add channels of zeros. Its `isomorphic` is the same as global
here, where all these layers are alike, and with uniform shares small steps are the same as one. FastNAS has the ways of
NVIDIA's notebook for a ResNet-20, but finer widths, as those by 16 do not come so low; it wants
`uv run --with nvidia-modelopt==0.47.0 --with torchprofile==0.0.4 python benchmarks/peers.py`; a tool that is not
installed is left out. ICE-Pruning is the paper's way in our program. The page has all rows that there are: finished
runs are kept below --work, those beside the published page count as finished if they are of the same kind of machine.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from cifar import accuracy, cifar10, part
from common import RESULTS, Ledger, Row, arguments, command, rules, table, write_page
from contenders import CONTENDERS, IMAGE, Contender, Task
from prepare import PUBLISHED
from resnet import CifarResNet, trained
from standings import all_settings, best_settings, draw, points, said, ways
from torch import Tensor, nn
from training import BATCH, augmented, estimate_norms, fine_tune

import ice_ray


def saved(model: nn.Module, file: Path) -> Path:
    """The file that its weights are in now."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}  # channels_last is none to it
    safetensors.torch.save_file(state, file)
    return file


def rebuilt(depth: int, file: Path) -> CifarResNet:
    """A pruned network from its weights, whose widths it takes."""
    model = CifarResNet(depth)
    for name, value in safetensors.torch.load_file(file).items():
        owner, _, own = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, own, nn.Parameter(value) if own in ("weight", "bias") else value)
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = value.shape[:2]
        elif isinstance(module, nn.BatchNorm2d) and own == "weight":
            module.num_features = len(value)
    return model


class Bench:
    """Runs of one seed: what is missing is run, what is there is not."""

    def __init__(self, options: Namespace, ledger: Ledger, seed: int) -> None:
        self._options, self._ledger, self._seed = options, ledger, seed
        train, self._test = cifar10(options.data, "train"), cifar10(options.data, "test")
        self._decide = part(self._test[1], len(self._test[1]) // 2, 0)
        self._rest = torch.ones(len(self._test[1]), dtype=torch.bool).index_fill(0, self._decide, False)
        dense = trained(options.weights, options.depth)
        self._task = Task(dense, train, self._half(self._decide), options.share, seed)
        self._multiply_adds = ice_ray.inspect(dense, IMAGE).dense["multiply_adds"]
        self._dense: float | None = None  # its accuracy, once it has been measured

    def run(self, tool: str, setting: str) -> None:
        """One tool in one setting, and every training asked for after it."""
        options = self._options
        fixed = {"tool": tool, "setting": setting, "depth": options.depth, "share": options.share, "seed": self._seed}
        name = re.sub(r"\W+", "-", f"{tool} {setting} resnet{options.depth} {options.share:g} {self._seed}")
        file = options.work / "peers" / f"{name}.safetensors"

        def key(images: int = 0, epochs: int = 0, rate: float = 0.0, distil: bool = False) -> dict[str, Any]:
            return fixed | {"images": images, "epochs": epochs, "rate": rate, "distil": distil}

        def after(train: Callable[[nn.Module], None]) -> Row:
            if not file.exists():
                self._prune(CONTENDERS[tool], setting, file)
            return self._measured(rebuilt(options.depth, file), train)

        self._ledger.once(key(), lambda: self._prune(CONTENDERS[tool], setting, file))
        calibration = self._task.images(1000)[0]
        self._ledger.once(key(1000), lambda: after(lambda model: self._with_norms(model, calibration)))
        images, labels = self._task.images(options.images)
        teacher = self._task.dense if options.distil else None
        for epochs, rate in itertools.product(options.epochs, options.rates):
            self._ledger.once(
                key(options.images, epochs, rate, options.distil),
                lambda epochs=epochs, rate=rate: after(
                    lambda model: fine_tune(model, images, labels, epochs, rate, self._seed, teacher)
                ),
            )

    def _prune(self, own: Contender, setting: str, file: Path) -> Row:
        own.version()
        begun = time.process_time()
        pruned = own.settings[setting](self._task)
        seconds = time.process_time() - begun
        model = rebuilt(self._options.depth, saved(pruned, file))
        widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
        share = ice_ray.inspect(model, IMAGE, ratio=0.01).dense["multiply_adds"] / self._multiply_adds
        row = {"seconds": seconds, "version": own.version(), "multiply_adds": share, "widths": widths}
        return row | self._scores(model)

    def _with_norms(self, model: nn.Module, images: Tensor) -> None:
        """Statistics of batch norms anew, of images as training augments them."""
        torch.manual_seed(self._seed)
        estimate_norms(model, map(augmented, images.split(BATCH)))

    def _measured(self, model: CifarResNet, train: Callable[[nn.Module], None]) -> Row:
        begun = time.process_time()
        train(model)
        return {"seconds": time.process_time() - begun} | self._scores(model)

    def _scores(self, model: nn.Module) -> Row:
        rest = self._half(self._rest)
        if self._dense is None:
            self._dense = accuracy(self._task.dense, *rest)
        deciding, own = accuracy(model, *self._task.deciding), accuracy(model, *rest)
        whole = (deciding * len(self._decide) + own * len(rest[1])) / len(self._test[1])
        return {"dense": self._dense, "deciding": deciding, "accuracy": own, "whole": whole}

    def _half(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._test[0][rows], self._test[1][rows]


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"), help="folder of CIFAR-10 as parquet")
    parser.add_argument("--weights", type=Path, help="[default: the published network's]")
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.387, help="of the multiply-adds, that may be left")
    parser.add_argument("--tools", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--settings", nargs="+", default=[""], metavar="WORDS", help="only those that have them")
    parser.add_argument(
        "--epochs", type=int, nargs="*", default=[], help="of training afterwards; none for no training"
    )
    parser.add_argument("--images", type=int, default=5000, help="training images of it")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05])
    parser.add_argument("--distil", action="store_true", help="train by the dense network's answers as well")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", help="its name, where that of another machine has the usual one")
    options = parser.parse_args()
    options.weights = options.weights or Path("data") / PUBLISHED[options.depth]
    torch.set_num_threads(options.threads)
    page = options.page or f"peers-resnet{options.depth}"
    ledger = Ledger(options.work, "peers", RESULTS / f"{page}.jsonl")
    if ledger.unlike and options.results.resolve() == RESULTS:
        raise SystemExit(
            f"{RESULTS.name}/{page}.jsonl has {len(ledger.unlike)} rows of another machine, which this page would "
            "lose: give it another name with --page"
        )
    absent = {tool for tool in options.tools if CONTENDERS[tool].missing()}
    for tool in sorted(absent):
        print(f"{tool} is left out: {CONTENDERS[tool].package} is not installed")
    for seed in options.seeds:
        bench = Bench(options, ledger, seed)
        for tool in (tool for tool in options.tools if tool not in absent):
            for setting in CONTENDERS[tool].settings:
                if any(words in setting for words in options.settings):
                    bench.run(tool, setting)
    write(options, ledger, page)


def write(options: Namespace, ledger: Ledger, page: str) -> None:
    """The page, its picture and its rows."""
    found = ways(ledger.rows, options.depth, options.share)
    rows = [row for own in found.values() for row in own]
    versions, machines = (
        sorted({row["version"] for row in rows}),
        sorted({each for row in rows for each in row["machines"]}),
    )
    options.results.mkdir(parents=True, exist_ok=True)
    kept = [row for row in ledger.rows if row["key"]["depth"] == options.depth]
    (options.results / f"{page}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    draw(options.results / f"{page}.png", found)
    write_page(
        options.results,
        f"{page}.md",
        f"""# Other tools beside ours, ResNet-{options.depth}

`{command()}` (the last of several commands: the rows say what was run)

{rules(__doc__)}

{"; ".join(machines)}; {", ".join(versions)}. Dense: {rows[0]["dense"][0]:.2f}%.
All runs are in [{page}.jsonl]({page}.jsonl).

![Accuracy over processor seconds, a line per tool]({page}.png)

{chr(10).join(said(found))}

{table(best_settings(points(found)))}

## Every setting

At the better rate, in percent as above, and in processor seconds.

{table(all_settings(ledger.rows, options.depth, options.share))}
""",
    )


if __name__ == "__main__":
    main()
