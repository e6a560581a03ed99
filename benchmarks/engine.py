"""How close the engine is to what the machine can do, and what it saves.

    python benchmarks/engine.py

CIFAR ResNets on CIFAR-10 (JPEG) in batches of 128, ResNet-50 on the same images enlarged to 224 pixels in batches of
32. (a) the forward pass of the network folded for inference, and (b) forward, backward and SGD step, both on one batch
of random numbers that is already there: the limits. (c) the engine's evaluation and (d) its fine-tune (augmented, no
teacher), on real images. (e) the usual loop: PIL decodes every image in a DataLoader's two worker processes, float32.
Its bound is what decoding and float32 cost by themselves: (1/decoded + 1/float32) x (b), images a second each.
All of a row's figures are measured in turn, the whole turn repeated; median, and range in brackets.
Finished parts are kept below --work and not redone.
"""

from __future__ import annotations

import io
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from common import (
    PREPROCESSING,
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
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ice_ray import PruningData
from ice_ray.data.batches import Shard
from ice_ray.data.images import ImageSet
from ice_ray.data.residence import bring
from ice_ray.engine.actions import Measure
from ice_ray.engine.cost import training_flops
from ice_ray.engine.executor import Executor
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.process_group import ProcessGroup
from ice_ray.engine.threshold import Threshold
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.removal_choice import RemovalRule, choose_removal
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.training.evaluate import count_correct, evaluation_batch
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.training.precision import Precision, autocast, resolve

matplotlib.use("agg")
import matplotlib.pyplot as plt

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISION = resolve("auto", DEVICE)
# Model: (image size, batch, images of a measurement on a CPU).
MODELS = {
    "cifar-resnet20": (32, 128, 5120),
    "cifar-resnet56": (32, 128, 1792),
    "cifar-resnet152": (32, 128, 640),
    "torchvision:resnet50": (224, 32, 96),
}
ETAS = (0.0, 0.3, 0.6, 0.9, 1.0)


def network_of(name: str, shared: Path) -> DenseNetwork:
    size = MODELS[name][0]
    module = dense_resnet20(shared) if name == "cifar-resnet20" else ModelSpec(name, 10).build()
    return DenseNetwork(module, (3, size, size))


@cache
def real_images(shared: Path, size: int, count: int) -> ImageSet:
    dataset = cifar10(shared)
    found = images(dataset, subsample(dataset, assign_roles(dataset, "holdout", 0).train, count, 0, "engine"))
    if size == 32:
        return found
    large = F.interpolate(found.images.permute(0, 3, 1, 2).float(), size=(size, size), mode="bilinear")
    return ImageSet(large.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous(), found.labels)


def finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rate(work: Callable[[], int], warm: bool = True) -> float:
    """Images a second of `work`, which returns how many it saw."""
    if warm:
        work()
    finish()
    started = time.perf_counter()
    seen = work()
    finish()
    return seen / (time.perf_counter() - started)


def random_batch(size: int, count: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, size, size, generator=drawn).contiguous(memory_format=torch.channels_last)
    return pixels.to(DEVICE), torch.randint(0, 10, (count,), generator=drawn).to(DEVICE)


def forward(network: DenseNetwork, batch: int, count: int) -> int:
    """(a)"""
    model = network.for_inference(network.build(DEVICE))
    pixels, _ = random_batch(network.image_shape[1], batch)
    with torch.inference_mode(), autocast(PRECISION, DEVICE):
        for _ in range(max(1, count // batch)):
            model(pixels)
    return max(1, count // batch) * batch


def train_steps(network: DenseNetwork, batch: int, count: int, precision: Precision = PRECISION) -> int:
    """(b)"""
    model = network.build(DEVICE).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
    pixels, labels = random_batch(network.image_shape[1], batch)
    for _ in range(count // batch):
        with autocast(precision, DEVICE):
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
    recipe = Recipe(batch_size=batch, distil=False, precision=PRECISION)
    return fine_tune(model, real, PREPROCESSING, recipe, lambda _: 1e-3, 1, (0, "engine"))[0]


class JpegDataset(Dataset[tuple[Tensor, int]]):
    """What is usually written: an image is decoded, cropped, flipped and normalised when it is asked for."""

    def __init__(self, files: list[bytes], labels: list[int]) -> None:
        self._files, self._labels = files, labels
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.open(io.BytesIO(self._files[index])).convert("RGB")), self._labels[index]


def usual_loader(real: ImageSet, seed: int = 0) -> DataLoader[tuple[Tensor, int]]:
    """Over JPEG files of the same images."""
    files = []
    for pixels in real.images.numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    return DataLoader(
        JpegDataset(files, real.labels.tolist()),
        batch_size=128,
        shuffle=True,
        num_workers=2,
        pin_memory=DEVICE.type == "cuda",
        generator=torch.Generator().manual_seed(seed),
    )


def usual_epoch(model: nn.Module, batches: Iterator[Any] | DataLoader[Any], learning_rate: float) -> int:
    """(e)"""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    model.train()
    seen = 0
    for pixels, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(pixels.to(DEVICE)), labels.to(DEVICE)).backward()
        optimizer.step()
        seen += len(labels)
    model.eval()
    return seen


def speeds(name: str, shared: Path) -> Row:
    """One turn over everything of one model: images a second."""
    size, batch, count = MODELS[name]
    count *= 20 if DEVICE.type == "cuda" else 1
    network = network_of(name, shared)
    many = bring(real_images(shared, size, min(4 * count, 45_000)), DEVICE)
    real = bring(real_images(shared, size, min(count, 45_000)), DEVICE)
    assert isinstance(real, ImageSet) and isinstance(many, ImageSet)
    found = {
        "a": rate(partial(forward, network, evaluation_batch(network.image_shape, DEVICE), len(many))),
        "c": rate(partial(evaluate, network, many)),
        "b": rate(partial(train_steps, network, batch, count)),
        "d": rate(partial(tune, network, real, batch)),
    }
    if name == "cifar-resnet20":
        loader = usual_loader(real.to(torch.device("cpu")))
        model = network.build(DEVICE)
        found["decoded"] = rate(lambda: sum(len(labels) for _, labels in loader))
        found["float32"] = rate(partial(train_steps, network, batch, count, "fp32"))
        found["e"] = rate(lambda: usual_epoch(model, loader, 1e-3))
    return found


def savings(shared: Path) -> Row:
    """One turn over the shares of frozen layers, ResNet-20: images a second, and operations an image."""
    network = network_of("cifar-resnet20", shared)
    real = bring(real_images(shared, 32, 2560), DEVICE)
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


def accuracies(shared: Path, seed: int) -> Row:
    """ResNet-20 with 60% of every unit's filters removed: an epoch of 10,000 images by either loop, percent."""
    dataset = cifar10(shared)
    roles = assign_roles(dataset, "holdout", 0)
    train = images(dataset, subsample(dataset, roles.train, 10_000, seed, "engine accuracy"))
    report = bring(images(dataset, roles.report), DEVICE)
    executor = Executor(
        network_of("cifar-resnet20", shared), PruningData(train, train, PREPROCESSING), Recipe(distil=False), 0, DEVICE
    )
    snapshot = executor.root
    for step in executor.network.steps:
        choice = choose_removal(executor, snapshot, step.number, RemovalRule(Amounts(0.6)))
        snapshot = executor.run(snapshot, choice.action).snapshot
    widths = executor.commit(snapshot)
    row: Row = {}
    for loop in ("ours", "usual"):
        model = executor.network.build_pruned(widths.widths, DEVICE)
        model.load_state_dict(widths.tensors)
        if loop == "ours":
            recipe = Recipe(distil=False, precision=PRECISION)
            fine_tune(model, bring(train, DEVICE), PREPROCESSING, recipe, lambda _: 0.01, 1, (seed, "engine"))
        else:
            torch.manual_seed(seed)
            usual_epoch(model, usual_loader(train, seed), 0.01)
        correct, _ = count_correct(model, report, PREPROCESSING, "fp32", Shard())
        row[loop] = 100 * int(correct) / len(report)
    return row


def early(shared: Path) -> Row:
    """Share of the 5,000 decision images that the threshold's question takes, after each of nine removals (60%, no
    fine-tune).
    """
    dataset = cifar10(shared)
    decide = images(dataset, assign_roles(dataset, "holdout", 0).decide)
    network = network_of("cifar-resnet20", shared)
    recipe = Recipe(distil=False, precision=PRECISION)
    executor = Executor(network, PruningData(decide, decide, PREPROCESSING), recipe, 0, DEVICE)
    original = executor.run(executor.root, Measure()).value.accuracy
    snapshot, row = executor.root, {"accuracy": [], "exact": [], "error 0.01": []}
    for step in network.steps:
        choice = choose_removal(executor, snapshot, step.number, RemovalRule(Amounts(0.6)))
        snapshot = executor.run(snapshot, choice.action).snapshot
        row["accuracy"].append(executor.run(snapshot, Measure()).value.accuracy)
        for name, error in (("exact", 0.0), ("error 0.01", 0.01)):
            measured = executor.run(snapshot, Measure(Threshold(original, 0.5, error))).value
            row[name].append(measured.images / len(decide))
    return row


def _rank(rank: int, port: int, shared: Path, folder: Path) -> None:
    """One of two processes: seconds of surgery, of wrapping for data-parallel training, of a checkpoint, per step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    network, group = network_of("cifar-resnet20", shared), ProcessGroup()
    some = real_images(shared, 32, 256)
    executor = Executor(network, PruningData(some, some, PREPROCESSING), Recipe(distil=False), 0, DEVICE, group)
    executor.warm_up()
    snapshot = executor.root
    seconds: dict[str, list[float]] = {"surgery": [], "wrap": [], "checkpoint": []}
    for step in network.steps:
        choice = choose_removal(executor, snapshot, step.number, RemovalRule(Amounts(0.6)))
        removed = executor.run(snapshot, choice.action)
        snapshot = removed.snapshot
        seconds["surgery"].append(removed.cost.wall_seconds)
        started = time.perf_counter()
        group.wrap(executor.module(snapshot))
        seconds["wrap"].append(time.perf_counter() - started)
        started = time.perf_counter()
        executor.commit(snapshot).save(folder / f"{rank}.safetensors")
        seconds["checkpoint"].append(time.perf_counter() - started)
    if rank == 0:
        torch.save(seconds, folder / "seconds.pt")
    dist.destroy_process_group()


def _report_loop(config: dict[str, Any]) -> None:
    """Reports nine checkpoints of a snapshot's size and, last, how long each report took."""
    import ray.train

    took = []
    for _ in range(9):
        with tempfile.TemporaryDirectory() as folder:
            first = ray.train.get_context().get_world_rank() == 0
            (Path(folder) / "snapshot").write_bytes(bytes(config["size"]))
            checkpoint = ray.train.Checkpoint.from_directory(folder) if first else None
            started = time.perf_counter()
            ray.train.report({"took": took}, checkpoint=checkpoint)
            took.append(time.perf_counter() - started)
    ray.train.report({"took": took})


def overheads(shared: Path) -> Row:
    """Mean seconds a pruning step, two processes: surgery, wrapping, checkpoint, report to Ray Train."""
    import ray.train
    import ray.train.torch

    from ice_ray.cluster.session import ray_session

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        mp.spawn(_rank, (port, shared, folder), nprocs=2)
        row = {
            part: statistics.mean(each) for part, each in torch.load(folder / "seconds.pt", weights_only=True).items()
        }
        size = (folder / "0.safetensors").stat().st_size
        with ray_session():
            trainer = ray.train.torch.TorchTrainer(
                _report_loop,
                train_loop_config={"size": size},
                scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
                run_config=ray.train.RunConfig(name="report", storage_path=str(folder)),
            )
            row["report"] = statistics.mean(trainer.fit().metrics["took"])
    return row


def ranged(values: list[float], form: str = "{:,.0f}") -> str:
    """Median, and range where there is more than one."""
    text = form.format(statistics.median(values))
    return text if len(values) == 1 else f"{text} [{form.format(min(values))}, {form.format(max(values))}]"


def speed_table(rows: list[Row]) -> str:
    head = ["model", "(a) forward", "(c) evaluation", "(c)/(a)", "(b) training", "(d) fine-tune", "(d)/(b)"]
    lines = [head]
    for name in MODELS:
        own = [row for row in rows if row["key"].get("speeds") == name]
        if own:
            a, b, c, d = ([row[part] for row in own] for part in "abcd")
            evaluated = [x / y for x, y in zip(c, a, strict=True)]
            trained = [x / y for x, y in zip(d, b, strict=True)]
            percent = [ranged([100 * each for each in share], "{:.0f}") + "%" for share in (evaluated, trained)]
            lines.append([name, ranged(a), ranged(c), percent[0], ranged(b), ranged(d), percent[1]])
    return table(lines)


def usual_text(rows: list[Row]) -> str:
    own = [row for row in rows if row["key"].get("speeds") == "cifar-resnet20"]
    ratio = [row["d"] / row["e"] for row in own]
    bound = [(1 / row["decoded"] + 1 / row["float32"]) * row["b"] for row in own]
    return (
        f"ResNet-20: (d) {ranged([row['d'] for row in own])} images/s, (e) {ranged([row['e'] for row in own])}: ratio "
        f"**{ranged(ratio, '{:.2f}')}**, bound {ranged(bound, '{:.2f}')} (decoding alone "
        f"{ranged([row['decoded'] for row in own])}, float32 training alone {ranged([row['float32'] for row in own])})."
    )


def saving_rows(rows: list[Row]) -> list[tuple[str, list[float], float]]:
    """Per share frozen: measured speed-up of the fine-tune in every turn, and that of the operations."""
    own = [row for row in rows if row["key"].get("part") == "savings"]
    names = [name for name in own[0] if name != "key"]
    return [
        (
            name,
            [row[name]["images"] / row["0"]["images"] for row in own],
            own[0]["0"]["flops"] / own[0][name]["flops"],
        )
        for name in names
    ]


def page(rows: list[Row], repeats: int) -> str:
    """The report in Markdown."""
    by_part = {row["key"]["part"]: row for row in rows if row["key"].get("part") in ("early", "overheads")}
    over = {part: seconds for part, seconds in by_part["overheads"].items() if part != "key"}
    epoch = 50_000 / statistics.median([row["d"] for row in rows if row["key"].get("speeds") == "cifar-resnet20"])
    parts = [["surgery", "data-parallel wrap", "checkpoint", "report", "together", "of an epoch"]]
    parts.append(
        [f"{1000 * over[part]:.1f} ms" for part in ("surgery", "wrap", "checkpoint", "report")]
        + [f"{1000 * sum(over.values()):.1f} ms", f"{100 * sum(over.values()) / epoch:.2f}%"]
    )
    frozen = [["frozen (eta)", "fine-tune faster by (measured)", "by operations (the bound)"]]
    frozen += [[name, ranged(each, "{:.2f}"), f"{bound:.2f}"] for name, each, bound in saving_rows(rows)]
    accurate = [row for row in rows if row["key"].get("part") == "accuracy"]
    close = [["seed", "engine (%)", "usual loop (%)"]]
    close += [[str(row["key"]["seed"]), f"{row['ours']:.2f}", f"{row['usual']:.2f}"] for row in accurate]
    close.append(["mean", *(f"{statistics.mean([row[loop] for row in accurate]):.2f}" for loop in ("ours", "usual"))])
    found = by_part["early"]
    steps = [["after step", *(str(number) for number in range(1, len(found["accuracy"]) + 1))]]
    steps.append(["accuracy (%)", *(f"{value:.1f}" for value in found["accuracy"])])
    for name in ("exact", "error 0.01"):
        steps.append([f"images looked at, {name}", *(f"{value:.0%}" for value in found[name])])
    return f"""# How close the engine is to the machine's limit

`{command()}`

{(__doc__ or "").split("    python", 1)[1].split(chr(10), 2)[2].strip()}

{machine()}, {PRECISION}; {repeats} repetitions.

## Images a second

{speed_table(rows)}

{usual_text(rows)}

## What freezing saves

ResNet-20, shallow layers frozen first; "cut" is `--freeze.stem`, which ends the backward pass below the lowest layer
that trains.

{table(frozen)}

![speed of a fine-tune against the share frozen](engine{"" if DEVICE.type == "cpu" else "_gpu"}.png)

## What a pruning step costs beside its fine-tune

ResNet-20, 60%, two processes (gloo), means over its nine steps; an epoch is (d) on 50,000 images, {epoch:.0f} s.

{table(parts)}

## Deciding early

The threshold (.5 points) asked of 5,000 decision images after each removal, nothing fine-tuned.

{table(steps)}

## Accuracy

ResNet-20 at 60%, one epoch of 10,000 images at learning rate .01, on the 5,000 report images.

{table(close)}
"""


def long_form(row: Row) -> list[Row]:
    """A line per figure."""
    key = {
        "part": row["key"].get("part", row["key"].get("speeds")),
        "turn": row["key"].get("turn", row["key"].get("seed")),
    }

    def lines(value: Any, name: str) -> Iterator[Row]:
        if isinstance(value, (int, float)):
            yield {"key": key, "figure": name, "value": float(value)}
            return
        for inner, each in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            yield from lines(each, f"{name} {inner}".strip())

    return [line for name, value in row.items() if name != "key" for line in lines(value, name)]


def draw(rows: list[Row], path: Path) -> None:
    """Measured speed-up and bound over the share frozen."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    lines = saving_rows(rows)
    for label, cut, colour in (("frozen", False, "C0"), ("frozen and cut", True, "C1")):
        own = [line for line in lines if line[0].endswith("cut") == cut]
        axes.plot(ETAS, [np.median(each) for _, each, _ in own], "o-", color=colour, label=f"{label}, measured")
        axes.plot(ETAS, [bound for _, _, bound in own], "--", color=colour, label=f"{label}, by operations")
    axes.set_xlabel("share of the layers frozen, shallow ones first")
    axes.set_ylabel("speed of a fine-tune")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.work, "engine")
    for turn in range(options.repeats):
        for name in MODELS:
            ledger.once({"speeds": name, "turn": turn}, partial(speeds, name, options.shared))
        ledger.once({"part": "savings", "turn": turn}, partial(savings, options.shared))
    for seed in range(3):
        ledger.once({"part": "accuracy", "seed": seed}, partial(accuracies, options.shared, seed))
    ledger.once({"part": "early"}, partial(early, options.shared))
    ledger.once({"part": "overheads"}, partial(overheads, options.shared))
    suffix = "" if DEVICE.type == "cpu" else "_gpu"
    write_parquet(f"engine{suffix}", [line for row in ledger.rows for line in long_form(row)])
    (RESULTS / f"engine{suffix}.md").write_text(page(ledger.rows, options.repeats))
    draw(ledger.rows, RESULTS / f"engine{suffix}.png")


if __name__ == "__main__":
    main()
