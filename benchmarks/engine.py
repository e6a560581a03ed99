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

import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from common import (
    PREPROCESSING,
    PUBLISHED,
    RESULTS,
    Ledger,
    Row,
    arguments,
    cifar10,
    dense_resnet20,
    images,
    write_parquet,
)
from engine_page import ETAS, draw, long_form, page
from torch import Tensor
from usual_loop import DEVICE, usual_epoch, usual_loader

from ice_ray import PruningData
from ice_ray.data.batches import Shard
from ice_ray.data.images import ImageSet
from ice_ray.data.placement import to_device
from ice_ray.distributed import ProcessGroup
from ice_ray.engine.actions import Measure, Outcome, Prune
from ice_ray.engine.cost import training_flops
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.threshold import Threshold
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.ingest.roles import assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.pipelines.layerwise import choose_removal
from ice_ray.pruning.freezing import hold_fixed
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.evaluate import count_correct, evaluation_batch
from ice_ray.training.fine_tune import Recipe, fine_tune
from ice_ray.training.precision import Precision, autocast, resolve

PRECISION, NO_TEACHER = resolve("auto", DEVICE), FineTuneConfig(distil=False)
# Model: (image size, batch, images of a measurement on a CPU).
MODELS = {
    "cifar-resnet20": (32, 128, 5120),
    "cifar-resnet56": (32, 128, 1792),
    "cifar-resnet152": (32, 128, 640),
    "torchvision:resnet50": (224, 32, 96),
}


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
    recipe = Recipe(batch, NO_TEACHER, precision=PRECISION)
    return fine_tune(model, real, PREPROCESSING, recipe, lambda _: 1e-3, 1, (0, "engine"))[0]


def speeds(name: str, shared: Path) -> Row:
    """One turn over everything of one model: images a second."""
    size, batch, count = MODELS[name]
    count *= 20 if DEVICE.type == "cuda" else 1
    network = network_of(name, shared)
    many = to_device(real_images(shared, size, min(4 * count, 45_000)), DEVICE)
    real = to_device(real_images(shared, size, min(count, 45_000)), DEVICE)
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


def removals(executor: TorchExecutor) -> Iterator[Outcome]:
    """60% of every unit's filters, a pruning step at a time, nothing fine-tuned."""
    snapshot = executor.root
    for step in executor.network.steps:
        chosen, _ = choose_removal(executor, snapshot, step.number, PUBLISHED)
        removed = executor.run(snapshot, Prune(chosen))
        snapshot = removed.snapshot
        yield removed


def accuracies(shared: Path, seed: int) -> Row:
    """ResNet-20 with 60% of every unit's filters removed: an epoch of 10,000 images by either loop, percent."""
    dataset = cifar10(shared)
    roles = assign_roles(dataset, "holdout", 0)
    train = images(dataset, subsample(dataset, roles.train, 10_000, seed, "engine accuracy"))
    report = to_device(images(dataset, roles.test), DEVICE)
    executor = TorchExecutor(
        network_of("cifar-resnet20", shared),
        PruningData(train, train, PREPROCESSING),
        Recipe(options=NO_TEACHER),
        0,
        DEVICE,
    )
    *_, last = removals(executor)
    widths = executor.commit(last.snapshot)
    row: Row = {}
    for loop in ("ours", "usual"):
        model = executor.network.build_pruned(widths.widths, DEVICE)
        model.load_state_dict(widths.tensors)
        if loop == "ours":
            recipe = Recipe(options=NO_TEACHER, precision=PRECISION)
            fine_tune(model, to_device(train, DEVICE), PREPROCESSING, recipe, lambda _: 0.01, 1, (seed, "engine"))
        else:
            torch.manual_seed(seed)
            usual_epoch(model, usual_loader(train, seed), 0.01)
        correct, _ = count_correct(model, report, PREPROCESSING, "fp32", Shard())
        row[loop] = 100 * int(correct) / len(report)
    return row


def early(shared: Path) -> Row:
    """Share of the 5,000 validation images that the threshold's question takes, after each of nine removals (60%, no
    fine-tune).
    """
    dataset = cifar10(shared)
    validation = images(dataset, assign_roles(dataset, "holdout", 0).validation)
    network = network_of("cifar-resnet20", shared)
    recipe = Recipe(options=NO_TEACHER, precision=PRECISION)
    executor = TorchExecutor(network, PruningData(validation, validation, PREPROCESSING), recipe, 0, DEVICE)
    original = executor.run(executor.root, Measure()).value.accuracy
    row: Row = {"accuracy": [], "exact": [], "error 0.01": []}
    for snapshot in (removed.snapshot for removed in removals(executor)):
        row["accuracy"].append(executor.run(snapshot, Measure()).value.accuracy)
        for name, error in (("exact", 0.0), ("error 0.01", 0.01)):
            measured = executor.run(snapshot, Measure(Threshold(original, 0.5, error))).value
            row[name].append(measured.images / len(validation))
    return row


def _rank(rank: int, port: int, shared: Path, folder: Path) -> None:
    """One of two processes: seconds of surgery, of wrapping for data-parallel training, of a checkpoint, per step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    network, group = network_of("cifar-resnet20", shared), ProcessGroup()
    some = real_images(shared, 32, 256)
    executor = TorchExecutor(
        network, PruningData(some, some, PREPROCESSING), Recipe(options=NO_TEACHER), 0, DEVICE, group
    )
    executor.warm_up()
    seconds: dict[str, list[float]] = {"surgery": [], "wrap": [], "checkpoint": []}
    for removed in removals(executor):
        seconds["surgery"].append(removed.cost.wall_seconds)
        started = time.perf_counter()
        group.wrap(executor.module(removed.snapshot))
        seconds["wrap"].append(time.perf_counter() - started)
        started = time.perf_counter()
        executor.commit(removed.snapshot).save(folder / f"{rank}.safetensors")
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
    about = (__doc__ or "").split("    python", 1)[1].split("\n", 2)[2].strip()
    picture = f"engine{suffix}.png"
    (RESULTS / f"engine{suffix}.md").write_text(page(ledger.rows, options.repeats, about, PRECISION, picture))
    draw(ledger.rows, RESULTS / picture)


if __name__ == "__main__":
    main()
