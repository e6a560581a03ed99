"""The tools that `peers.py` compares, each by its own documented way from a dense network to a pruned one."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from cifar import MEAN, STD, normalised, part
from resnet import Block, CifarResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from training import BATCH, augmented

import ice_ray

IMAGE = (3, 32, 32)


@dataclass(frozen=True)
class Task:
    """What a tool is given.

    Attributes:
        dense: the trained network, which stays as it is.
        train: uint8 images (N, 3, 32, 32) and labels (N,) to calibrate by and to train on.
        deciding: the same of images that the network was not trained on.
        share: of the dense network's multiply-adds, what may be left.
        seed: of every random choice.
    """

    dense: CifarResNet
    train: tuple[Tensor, Tensor]
    deciding: tuple[Tensor, Tensor]
    share: float
    seed: int

    def images(self, count: int, of: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """So many training images, or others, equally of every class, which are mixed: batches have statistics."""
        images, labels = of or self.train
        rows = part(labels, count, self.seed)
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]
        return images[rows], labels[rows]


Tool = Callable[[Task], nn.Module]


@dataclass(frozen=True)
class Contender:
    """A tool.

    Attributes:
        distribution: that has it, as pip knows it.
        package: as it is imported.
        settings: its ways, by the name that the tables show.
    """

    distribution: str
    package: str
    settings: dict[str, Tool]

    def missing(self) -> bool:
        return importlib.util.find_spec(self.package) is None

    def version(self) -> str:
        return f"{self.distribution} {importlib.metadata.version(self.distribution)}"


def multiply_adds(model: nn.Module) -> int:
    """Of one image, in convolutions and linear layers."""
    own = copy.deepcopy(model).eval()  # in training mode the image would change batch-norm statistics
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        own(torch.zeros(1, *IMAGE))
    return counter.get_total_flops() // 2


def ours(images: int, task: Task, **options: Any) -> nn.Module:
    """`ice_ray.prune` with its defaults, from so many images; labels are not looked at where nothing is trained.

    It measures how good the network is before and after, which for the others is no part of their time: where nothing
    depends on it, on few images.
    """
    keywords: dict[str, Any] = {"target": f"macs={task.share:g}", "calibration_images": images} | options
    decides = "hyperparameters" in keywords
    preprocessing = ice_ray.Preprocessing(MEAN, STD, pad=4, flip=True)
    result = ice_ray.prune(
        task.dense,
        task.images(images),
        task.deciding if decides else task.images(100, task.deciding),
        seed=task.seed,
        preprocessing=preprocessing,
        progress=False,
        **keywords,
    )
    return result.model


AS_PUBLISHED = {"criterion": "l1", "allocate": "uniform", "repair": "none", "calibration_images": 1000}
ICE = {"decision_error": 0.0, "hyperparameters": ice_ray.IceHyperparameters(0.5, 0.3, 0.005, 8e-4, 0.1, 40)}


def always(rate: float) -> dict[str, Any]:
    """Keywords of a run that trains an epoch after every layer, as the paper's baseline does."""
    return {"pipeline": "baseline", "hyperparameters": ice_ray.BaselineHyperparameters(rate)}


# How Torch-Pruning's documentation names its importances, with the arguments that make them of them.
IMPORTANCES: dict[str, tuple[str, dict[str, Any]]] = {
    "l2": ("MagnitudeImportance", {"p": 2, "group_reduction": "first"}),
    "group norm": ("GroupMagnitudeImportance", {"p": 2}),
    "Taylor": ("GroupTaylorImportance", {}),
}


def torch_pruning(importance: str, everywhere: bool, steps: int, task: Task, anew: int = 0) -> nn.Module:
    """Only filters inside of blocks go (`ignored_layers`), as the widths of the option-A shortcuts cannot change.

    Args:
        importance: one of IMPORTANCES; Taylor's gradients are summed over 1,000 images.
        everywhere: whether filters of all layers are ranked together (`global_pruning`).
        steps: with 1, bisection finds the ratio; with more, there are so many small steps (`iterative_steps`) on the
            way to nothing, until the target is reached.
        anew: after how many steps gradients are summed anew; 0 for never.
    """
    library = importlib.import_module("torch_pruning")
    name, arguments = IMPORTANCES[importance]
    limit = task.share * multiply_adds(task.dense)

    def copied() -> nn.Module:
        return copy.deepcopy(task.dense).eval()

    def pruner(model: nn.Module, ratio: float) -> Any:
        inner = {block.conv1 for block in model.modules() if isinstance(block, Block)}
        layers = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
        return library.pruner.BasePruner(
            model,
            torch.zeros(1, *IMAGE),
            importance=getattr(library.importance, name)(**arguments),
            global_pruning=everywhere,
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=[layer for layer in layers if layer not in inner],
        )

    def sum_gradients(model: nn.Module) -> None:
        if importance == "Taylor":
            model.zero_grad()
            for images, labels in zip(*(each.split(BATCH) for each in task.images(1000)), strict=True):
                F.cross_entropy(model(normalised(images)), labels, reduction="sum").backward()

    pruned = copied()
    sum_gradients(pruned)
    if steps > 1:
        gradual = pruner(pruned, 1.0)
        for step in range(1, steps):
            gradual.step()
            if multiply_adds(pruned) <= limit:
                return pruned
            if anew and step % anew == 0:
                sum_gradients(pruned)
        raise SystemExit(f"Torch-Pruning does not come to {task.share:g} of the multiply-adds in {steps} steps")
    gradients = [parameter.grad for parameter in pruned.parameters()]
    low, high, found = 0.0, 1.0, None  # the ratio lies between
    for _ in range(12):
        ratio, pruned = (low + high) / 2, copied()
        for parameter, gradient in zip(pruned.parameters(), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        pruner(pruned, ratio).step()
        if multiply_adds(pruned) <= limit:
            high, found = ratio, pruned
        else:
            low = ratio
    if found is None:
        raise SystemExit(f"Torch-Pruning does not come to {task.share:g} of the multiply-adds in one step")
    return found


def fast_nas(divisor: int, task: Task) -> nn.Module:
    """As NVIDIA's notebook prunes a ResNet-20, with 1,000 images that score and 1,000 for batch-norm statistics.

    Args:
        divisor: of widths (`channel_divisor`).
    """
    library = importlib.import_module("modelopt.torch.prune")
    config = library.fastnas.FastNASConfig()
    config["nn.Conv2d"]["*"]["channel_divisor"] = divisor
    config["nn.BatchNorm2d"]["*"]["feature_divisor"] = divisor
    images, labels = task.images(1000)
    scoring, wanted = task.images(1000, task.deciding)
    scoring = normalised(scoring)
    torch.manual_seed(task.seed)
    batch = len(images) // 50  # of fewer than 50 batches it would estimate no batch-norm statistics

    @torch.no_grad()
    def score(model: nn.Module) -> float:
        model.eval()
        return 100 * float((model(scoring).argmax(1) == wanted).float().mean())

    found, _ = library.prune(
        model=copy.deepcopy(task.dense),
        mode=[("fastnas", config)],
        constraints={"flops": f"{100 * task.share:g}%"},
        dummy_input=torch.zeros(1, *IMAGE),
        config={
            "data_loader": list(zip(augmented(images).split(batch), labels.split(batch), strict=True)),
            "score_func": score,
            "verbose": False,
        },
    )
    pruned: nn.Module = found
    return pruned


CONTENDERS = {
    "ice_ray": Contender(
        "ice_ray",
        "ice_ray",
        {f"without labels, {images:,} images": partial(ours, images) for images in (1000, 2000)}
        | {
            f"without labels, least squares, {images:,} images": partial(ours, images, repair="least-squares")
            for images in (250, 1000)
        },
    ),
    "ICE-Pruning": Contender(
        "ice_ray",
        "ice_ray",
        {
            f"{name}, {images:,} images": partial(ours, images, **AS_PUBLISHED, **options)
            for images in (1000, 5000)
            for name, options in {
                "as published": ICE,
                **{f"always fine-tuning, rate {rate:g}": always(rate) for rate in (0.005, 0.01)},
            }.items()
        },
    ),
    "Torch-Pruning": Contender(
        "torch-pruning",
        "torch_pruning",
        {f"{name}, uniform": partial(torch_pruning, name, False, 1) for name in IMPORTANCES}
        | {
            f"{name}, global, {'one step' if steps == 1 else f'{steps} steps'}": partial(
                torch_pruning, name, True, steps
            )
            for name, steps in product(IMPORTANCES, (1, 400))
        }
        | {"Taylor, global, 400 steps, gradients anew": partial(torch_pruning, "Taylor", True, 400, anew=60)},
    ),
    "ModelOpt FastNAS": Contender(
        "nvidia-modelopt", "modelopt", {f"widths by {divisor}": partial(fast_nas, divisor) for divisor in (8, 4, 2)}
    ),
}
