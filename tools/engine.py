"""How close the engine is to what the machine can do, and what it saves.

    python tools/engine.py

CIFAR ResNets on CIFAR-10 (JPEG) in batches of 128, ResNet-50 on the same images enlarged to 224 pixels in batches of
32. (a) the forward pass of the network folded for inference, and (b) forward, backward and SGD step, both on one batch
of random numbers that is already there: the limits. (c) the engine's evaluation and (d) its fine-tune (augmented, no
teacher), on real images. (e) the usual loop: PIL decodes every image in a DataLoader's two worker processes, float32.
All of a row's figures are measured in turn, the whole turn repeated; median, and range in brackets. Finished parts are
kept below --work and not redone.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from common import RESULTS, Ledger, Row, arguments, command, machine, rules, table

from ice_ray import ImageSet, Preprocessing
from ice_ray.data.batches import Shard
from ice_ray.data.placement import to_device
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.work import training_flops
from ice_ray.ingest.datasets import open_dataset
from ice_ray.models.registry import ModelSpec
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.evaluate import count_correct, evaluation_batch
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.training.precision import autocast, resolve

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PREPROCESSING, PRECISION = Preprocessing(pad=4, flip=True), resolve("auto", DEVICE)
ETAS = (0.0, 0.3, 0.6, 0.9, 1.0)
# Model: (image size, batch, images of a measurement on a CPU).
MODELS = {
    "cifar-resnet20": (32, 128, 5120),
    "cifar-resnet56": (32, 128, 1792),
    "cifar-resnet152": (32, 128, 640),
    "torchvision:resnet50": (224, 32, 96),
}


def network_of(name: str) -> DenseNetwork:
    """With weights drawn at random, which are as fast as others."""
    return DenseNetwork(ModelSpec(name, 10).build(), (3, MODELS[name][0], MODELS[name][0]))


@cache
def real_images(shared: Path, size: int, count: int) -> ImageSet:
    """The first training images, enlarged where the network asks for it."""
    dataset = open_dataset(f"cifar10:{shared / 'datasets' / 'cifar10-jpeg'}")
    rows = np.arange(count)
    pixels = np.stack([row.pixels for row in dataset.read("train", rows) if row.pixels is not None])
    labels = dataset.labels["train"][rows]
    if size == 32:
        return ImageSet.from_numpy(pixels, labels)
    large = F.interpolate(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), size=(size, size), mode="bilinear")
    return ImageSet.from_numpy(large.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy(), labels)


def rate(work: Callable[[], int]) -> float:
    """Images a second of `work`, which returns how many it saw; a first round warms up."""
    for _ in range(2):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        seen = work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return seen / (time.perf_counter() - started)


def random_batch(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Numbers that are on the device already."""
    pixels = torch.randn(count, 3, size, size, device=DEVICE).contiguous(memory_format=torch.channels_last)
    return pixels, torch.randint(0, 10, (count,), device=DEVICE)


def forward(network: DenseNetwork, batch: int, count: int) -> int:
    """(a)"""
    model = network.for_inference(network.build(DEVICE))
    pixels, _ = random_batch(network.image_shape[1], batch)
    rounds = max(1, count // batch)
    with torch.inference_mode(), autocast(PRECISION, DEVICE):
        for _ in range(rounds):
            model(pixels)
    return rounds * batch


def train_steps(network: DenseNetwork, batch: int, count: int) -> int:
    """(b)"""
    model = network.build(DEVICE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    pixels, labels = random_batch(network.image_shape[1], batch)
    for _ in range(count // batch):
        with autocast(PRECISION, DEVICE):
            logits = model(pixels)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return count // batch * batch


def evaluate(network: DenseNetwork, real: ImageSet) -> int:
    """(c), folding included."""
    model = network.for_inference(network.build(DEVICE))
    int(count_correct(model, real, PREPROCESSING, PRECISION, Shard())[0])
    return len(real)


def tune(network: DenseNetwork, real: ImageSet, batch: int, frozen: tuple[str, ...] = (), cut: bool = False) -> int:
    """(d)"""
    model = network.build(DEVICE)
    hold_fixed(model, frozen, network.norms, network.below(frozen) if cut else ())
    recipe = Recipe(batch, FineTuneConfig(distil=False), precision=PRECISION)
    return fine_tune(model, real, PREPROCESSING, recipe, lambda _: 1e-3, 1, (0, "engine"))[0]


class JpegDataset(Dataset[tuple[Tensor, int]]):
    """What is usually written: an image is decoded, cropped, flipped and normalised when it is asked for."""

    def __init__(self, real: ImageSet) -> None:
        self._files, self._labels = [], real.labels.tolist()
        for pixels in real.images.cpu().numpy():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
            self._files.append(buffer.getvalue())
        as_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        normalised = v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std)
        self._transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *as_float, normalised])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.open(io.BytesIO(self._files[index])).convert("RGB")), self._labels[index]


def usual_epoch(model: nn.Module, batches: DataLoader[tuple[Tensor, int]]) -> int:
    """(e)"""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    seen = 0
    for pixels, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(pixels.to(DEVICE)), labels.to(DEVICE)).backward()
        optimizer.step()
        seen += len(labels)
    return seen


def speeds(name: str, shared: Path) -> Row:
    """One turn over everything of one model: images a second."""
    size, batch, count = MODELS[name]
    count *= 20 if DEVICE.type == "cuda" else 1
    network = network_of(name)
    many, real = (to_device(real_images(shared, size, min(n, 12_500)), DEVICE) for n in (4 * count, count))
    assert isinstance(real, ImageSet) and isinstance(many, ImageSet)
    found = {
        "a": rate(partial(forward, network, evaluation_batch(network.image_shape, DEVICE), len(many))),
        "c": rate(partial(evaluate, network, many)),
        "b": rate(partial(train_steps, network, batch, count)),
        "d": rate(partial(tune, network, real, batch)),
    }
    if name == "cifar-resnet20":
        loader = DataLoader(JpegDataset(real), batch, shuffle=True, num_workers=2, pin_memory=DEVICE.type == "cuda")
        found["e"] = rate(partial(usual_epoch, network.build(DEVICE), loader))
    return found


def savings(shared: Path) -> Row:
    """One turn over the shares of frozen layers, ResNet-20: images a second, and operations an image."""
    network = network_of("cifar-resnet20")
    real = to_device(real_images(shared, 32, 2560), DEVICE)
    assert isinstance(real, ImageSet)
    row: Row = {}
    for eta in ETAS:
        # Shallow layers first: the order in which cutting off the stem can save anything.
        frozen = network.freezable[: round(eta * len(network.freezable))]
        for cut in (False, True):
            model = network.build(DEVICE)
            hold_fixed(model, frozen, network.norms, network.below(frozen) if cut else ())
            row[f"{eta:g}{' cut' if cut else ''}"] = {
                "images": rate(partial(tune, network, real, 128, frozen, cut)),
                "flops": training_flops(model, network.traces),
            }
    return row


def ranged(values: list[float], form: str = "{:,.0f}") -> str:
    """Median, and range where there is more than one."""
    text = form.format(statistics.median(values))
    return text if len(values) == 1 else f"{text} [{form.format(min(values))}, {form.format(max(values))}]"


def speed_table(rows: list[Row]) -> str:
    """Images a second, and the shares of the limits."""
    head = ["model", "(a) forward", "(c) evaluation", "(c)/(a)", "(b) training", "(d) fine-tune", "(d)/(b)", "(e)"]
    lines = [head]
    for name in MODELS:
        own = [row for row in rows if row["key"]["part"] == name]
        a, b, c, d = ([row[part] for row in own] for part in "abcd")
        evaluated, trained = (
            ranged([100 * x / y for x, y in zip(*each, strict=True)]) + "%" for each in ((c, a), (d, b))
        )
        usual = ranged([row["e"] for row in own]) if "e" in own[0] else ""
        lines.append([name, ranged(a), ranged(c), evaluated, ranged(b), ranged(d), trained, usual])
    return table(lines)


def saving_table(rows: list[Row]) -> str:
    """Per share frozen: how much faster the fine-tune is, and by operations would be."""
    own = [row for row in rows if row["key"]["part"] == "savings"]
    lines = [["frozen (eta)", "fine-tune faster by (measured)", "by operations (the bound)"]]
    for name in (name for name in own[0] if name not in ("key", "machine")):
        measured = [row[name]["images"] / row["0"]["images"] for row in own]
        lines.append([name, ranged(measured, "{:.2f}"), f"{own[0]['0']['flops'] / own[0][name]['flops']:.2f}"])
    return table(lines)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with datasets/")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger, rows = Ledger(options.work, f"engine-{DEVICE.type}"), []
    for turn in range(options.repeats):
        for name in MODELS:
            rows.append(ledger.once({"part": name, "turn": turn}, partial(speeds, name, options.shared)))
        rows.append(ledger.once({"part": "savings", "turn": turn}, partial(savings, options.shared)))
    suffix = "" if DEVICE.type == "cpu" else "_gpu"
    (options.results / f"engine{suffix}.md").write_text(f"""# How close the engine is to the machine's limit

`{command()}`

{rules(__doc__)}

{machine()}; {options.threads} threads, {PRECISION}; {options.repeats} repetitions.

## Images a second

{speed_table(rows)}

## What freezing saves

ResNet-20, shallow layers frozen first; "cut" is `--freeze.stem`, which ends the backward pass below the lowest layer
that trains.

{saving_table(rows)}
""")


if __name__ == "__main__":
    main()
