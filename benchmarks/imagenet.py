"""A pretrained ImageNet network made smaller from 500 images without labels, by `ice_ray.prune` and by Torch-Pruning.

    python benchmarks/imagenet.py [--shares 0.8] [--tools ice_ray] [--repairs reconstruction] [--allocate error uniform]

timm's EfficientNet-Lite0 with the published weights, in float32 on one thread, at a share of its multiply-adds (those
of convolutions and linear layers). 500 training images are the calibration images; their labels are not looked at,
nothing is decided on the test images, and nothing is trained against labels. `ice_ray.prune` runs with its defaults but
for the options of the row: its repair, how the target is shared out, and how many epochs of the calibration images all
layers are reconstructed together for, after the last step. Torch-Pruning removes filters by the l2 norms of their
groups (its default), at the least ratio that reaches the target, by its own DependencyGraph; `everything` but the
classifier, as it does unless told otherwise, or the `inner` filters of the blocks alone, which is what `ice_ray.prune`
removes; then the statistics of the batch norms are estimated anew from the same 500 images.

Top-1 is over 500 test images; agreement is the share of them to which the dense network gives the same answer. Every
row is a run in a process of its own; its seconds are processor seconds of the removal, repair and, of Torch-Pruning,
the search for the ratio, without reading images and testing; memory is the most that the process has held until then,
images included. Rows lie below --work, finished ones are not run again, and the page has all that lie there: run a
part, and later the others.
"""

from __future__ import annotations

import copy
import io
import itertools
import math
import multiprocessing
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import timm
import torch
import torch_pruning
from common import Ledger, Row, arguments, rules, table, write_page
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from training import estimate_norms

import ice_ray

NETWORK, SIZE, SHORTER_SIDE = "tf_efficientnet_lite0", 224, 256
BATCH, FEW = 125, 25  # images at a time where statistics come of them, and where they do not
MEAN = STD = (0.5, 0.5, 0.5)
DISPLAYED = 16
"""Training images on which `ice_ray.prune` says what a step has cost: it decides nothing by them here."""


class Way(NamedTuple):
    """How a network is made smaller: a row of the table at every share."""

    tool: str
    filters: str
    repair: str
    allocate: str
    joint_epochs: float = 0.0


OURS = [
    Way("ice_ray", "inner", repair, allocate, joint)
    for repair, allocate in itertools.product(("none", "bn", "least-squares", "reconstruction"), ("uniform", "error"))
    for joint in ((0.0, 6.0) if repair == "reconstruction" else (0.0,))
]
THEIRS = [
    Way("torch-pruning", filters, "bn", allocate)
    for filters, allocate in itertools.product(("everything", "inner"), ("uniform", "global"))
]
DENSE = Way("none", "all", "none", "none")


def images(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 3, 224, 224), the middle of what is 256 pixels on the shorter side, and labels, int64 (N,)."""
    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        raise SystemExit(f"no {split}*.parquet in {folder}: columns image (bytes of a file) and label")
    rows = pq.read_table(files, columns=["image", "label"])
    pixels = [np.asarray(_middle(Image.open(io.BytesIO(each)))) for each in rows["image"].to_pylist()]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(rows["label"].to_pylist())


def _middle(image: Image.Image) -> Image.Image:
    factor = SHORTER_SIDE / min(image.size)
    size = [round(factor * side) for side in image.size]
    left, top = ((side - SIZE) // 2 for side in size)
    whole = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
    return whole.crop((left, top, left + SIZE, top + SIZE))


def trained(weights: Path) -> nn.Module:
    """The published network: images (N, 3, 224, 224) to logits (N, 1000)."""
    model: nn.Module = timm.create_model(NETWORK)
    model.load_state_dict(load_file(weights))
    return model.eval()


def normalised(given: Tensor) -> Tensor:
    """Floats as the network has seen them in training."""
    return (given.float() / 255 - MEAN[0]) / STD[0]


@torch.inference_mode()
def answers(model: nn.Module, given: Tensor) -> Tensor:
    """Classes, int64 (N,)."""
    return torch.cat([model(normalised(each)).argmax(1) for each in given.split(FEW)])


@torch.inference_mode()
def multiply_adds(model: nn.Module, shape: Sequence[int]) -> int:
    """Of the convolutions and linear layers, for one image (C, H, W)."""
    counts: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        places = output[0].numel() // (output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1])
        counts.append(places * layer.get_parameter("weight").numel())

    layers = [each for each in model.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
    hooks = [each.register_forward_hook(count) for each in layers]
    model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def parameters(model: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(each.numel() for each in model.parameters())


def pruned_by_torch_pruning(
    model: nn.Module, shape: Sequence[int], share: float, allocate: str, spared: Sequence[str]
) -> nn.Module:
    """A smaller copy, by the least ratio, in thousandths, that leaves no more than this share of the multiply-adds.

    Args:
        spared: names of layers whose outputs stay.
    """
    dense = multiply_adds(model, shape)

    def pruned(thousandths: int) -> nn.Module:
        own = copy.deepcopy(model)
        torch_pruning.pruner.BasePruner(
            own,
            torch.zeros(1, *shape),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            global_pruning=allocate == "global",
            pruning_ratio=thousandths / 1000,
            ignored_layers=[own.get_submodule(name) for name in spared],
        ).step()
        return own

    least, most = 0, 999
    found = pruned(most)
    while most - least > 1:
        middle = (least + most) // 2
        own = pruned(middle)
        if multiply_adds(own, shape) <= share * dense:
            most, found = middle, own
        else:
            least = middle
    return found


def not_inner(model: nn.Module) -> list[str]:
    """Of an EfficientNet of timm, the layers whose outputs other blocks read: stem, ends of blocks, head."""
    ends = ("conv_stem", "conv_head", "classifier", ".conv_pwl", "blocks.0.0.conv_pw")
    return [name for name, _ in model.named_modules() if name.endswith(ends)]


def run(way: Way, share: float, seed: int, data: Path, weights: Path) -> Row:
    """One row: top-1 and agreement in percent, shares of what is left, processor seconds, GiB."""
    torch.set_num_threads(1)
    model, (calibration, labels), test = trained(weights), images(data, "train"), images(data, "test")
    shape, widths, begun = calibration.shape[1:], dict[str, int](), time.process_time()
    if way.tool == "ice_ray":
        result = ice_ray.prune(
            model,
            (calibration, labels),
            (calibration[:DISPLAYED], labels[:DISPLAYED]),
            target=f"macs={share:g}",
            seed=seed,
            preprocessing=ice_ray.Preprocessing(MEAN, STD),
            precision="fp32",
            calibration_images=len(calibration),
            repair=way.repair,
            allocate=way.allocate,
            joint_epochs=way.joint_epochs,
            progress=False,
        )
        smaller, widths = result.model, result.widths
    elif way.tool == "torch-pruning":
        spared = not_inner(model) if way.filters == "inner" else ["classifier"]
        smaller = pruned_by_torch_pruning(model, shape, share, way.allocate, spared)
        estimate_norms(smaller, map(normalised, calibration.split(BATCH)))
    else:
        smaller = model
    seconds, memory = time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    theirs, ours = answers(model, test[0]), answers(smaller, test[0])
    return {
        "macs": multiply_adds(smaller, shape) / multiply_adds(model, shape),
        "parameters": parameters(smaller) / parameters(model),
        "top1": 100 * float((ours == test[1]).float().mean()),
        "agreement": 100 * float((ours == theirs).float().mean()),
        "images": [len(calibration), len(test[1])],
        "widths": widths,
        "seconds": seconds,
        "memory": memory,
        "versions": {name: version(name) for name in ("timm", "torch-pruning")},
    }


def alone(*asked: object) -> Row:
    """`run` in a process of its own, so that memory is its own, too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *asked).result()


def page(rows: Sequence[Row]) -> str:
    """The tables, a share each, in the order of the ways."""
    order, parts = [*OURS, *THEIRS], list[str]()
    heads = ["tool", "filters", "repair", "allocation", "joint epochs", "multiply-adds", "parameters", "top-1, %"]
    heads += ["agreement, %", "processor s", "GiB"]
    for share in sorted({row["key"]["share"] for row in rows if row["key"]["share"] < 1}, reverse=True):
        lines = [heads]
        own = [row for row in rows if row["key"]["share"] == share]
        for row in sorted(own, key=lambda each: (order.index(_way(each)), each["key"]["seed"])):
            way = _way(row)
            joint = f"{way.joint_epochs:g}" if way.repair == "reconstruction" else ""
            figures = [f"{row[name]:.3f}" for name in ("macs", "parameters")]
            figures += [f"{row[name]:.1f}" for name in ("top1", "agreement", "seconds", "memory")]
            lines.append([way.tool, way.filters, way.repair, way.allocate, joint, *figures])
        parts.append(f"## {share:g} of the multiply-adds\n\n{table(lines)}\n")
    return "\n".join(parts)


def _way(row: Row) -> Way:
    return Way(*(row["key"][name] for name in Way._fields))


def main() -> None:
    """Run what is missing and write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/imagenet-1000"), help="folder of parquet files")
    parser.add_argument("--weights", type=Path, default=Path(f"data/{NETWORK}.safetensors"))
    parser.add_argument("--shares", type=float, nargs="*", default=[0.9, 0.8, 0.7], help="none: the page alone")
    for name, field in (("tools", "tool"), ("repairs", "repair"), ("allocate", "allocate")):
        choices = sorted({getattr(way, field) for way in (*OURS, *THEIRS)})
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices, help="[default: all]")
    parser.add_argument("--joint-epochs", type=float, nargs="+", default=[0.0, 6.0], help="of a reconstruction")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    ledger = Ledger(asked.work, "imagenet")

    def once(way: Way, share: float, seed: int) -> Row:
        key = {**way._asdict(), "share": share, "seed": seed}
        return ledger.once(key, partial(alone, way, share, seed, asked.data, asked.weights))

    dense = once(DENSE, 1.0, 0)
    for seed, share, way in itertools.product(asked.seeds, asked.shares, (*OURS, *THEIRS)):
        named = way.tool in asked.tools and way.repair in asked.repairs and way.allocate in asked.allocate
        if named and (way.repair != "reconstruction" or way.joint_epochs in asked.joint_epochs):
            once(way, share, seed)
    top1, test = dense["top1"], dense["images"][1]
    error = 100 * math.sqrt(top1 / 100 * (1 - top1 / 100) / test)
    versions = ", ".join(f"{name} {number}" for name, number in dense["versions"].items())
    write_page(
        asked.results,
        "imagenet.md",
        f"""# A pretrained ImageNet network, without labels

`python benchmarks/imagenet.py`, a part at a time

{rules(__doc__)}

{"; ".join(sorted({row["machine"] for row in ledger.rows}))}; {versions}. The dense network's top-1 is {top1:.1f}% of
{test} test images: on others of their kind a standard error of {error:.1f} points is to be expected. All rows are over
the same images.

{page(ledger.rows)}""",
    )


if __name__ == "__main__":
    main()
