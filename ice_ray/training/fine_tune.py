"""The fine-tune: a few epochs of SGD at a bounded learning rate, with some layers held fixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.data.batches import Shard, training_batches
from ice_ray.data.images import ImageSet, Preprocessing
from ice_ray.errors import UserError
from ice_ray.randomness import seed_of
from ice_ray.training.distil import distillation_loss
from ice_ray.training.precision import Precision, autocast


@dataclass(frozen=True)
class Recipe:
    """How every fine-tune of a run is done (section IV-A, table I).

    Attributes:
        batch_size: images per SGD step over all processes together.
        momentum, weight_decay: of SGD, which is made afresh for every fine-tune.
        distil: whether the unpruned model teaches.
        temperature: T of the distillation.
        precision: number type of the arithmetic.
    """

    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 1e-4
    distil: bool = True
    temperature: float = 2.0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UserError(f"batch size {self.batch_size} must be at least 2")


def fine_tune(
    model: nn.Module,
    images: ImageSet,
    preprocessing: Preprocessing,
    recipe: Recipe,
    learning_rates: Sequence[float],
    key: tuple[int | str, ...],
    teacher: nn.Module | None = None,
    shard: Shard = Shard(),
) -> tuple[int, Tensor]:
    """Train `model` in place, one epoch per learning rate.

    Returns how many images it saw over all processes, and this process's sum of losses (a scalar on the device;
    not finite where training diverged, which only all processes together can decide).

    Args:
        model: may be wrapped for data-parallel training; only parameters that require a gradient are touched.
        key: names the random choices (seed, step, purpose); the epoch is added to it.
        teacher: the unpruned model in eval mode, or None.
    """
    seen = 0
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = images.images.device
    optimizer = torch.optim.SGD(
        parameters,
        lr=learning_rates[0] if learning_rates else 0.0,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cuda", "cpu"),
    )
    losses = torch.zeros((), device=device)
    gpus = [device] if device.type == "cuda" else []
    with _training(model), torch.random.fork_rng(devices=gpus):
        for epoch, rate in enumerate(learning_rates):
            torch.manual_seed(seed_of(*key, epoch, "model", shard.rank))  # dropout and the like
            for group in optimizer.param_groups:
                group["lr"] = rate
            for batch, labels, rows in training_batches(images, preprocessing, recipe.batch_size, (*key, epoch), shard):
                loss = _loss(model, batch, labels, recipe, teacher)
                # Gradients are averaged over processes: weigh each by its share of the rows, so that the average
                # is that of the global batch even where it does not divide evenly.
                (loss * (len(labels) * shard.world / rows)).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses += loss.detach()
                seen += rows
    return seen, losses


def _loss(model: nn.Module, batch: Tensor, labels: Tensor, recipe: Recipe, teacher: nn.Module | None) -> Tensor:
    with autocast(recipe.precision, batch.device):
        logits = model(batch)
        if teacher is not None:
            with torch.no_grad():
                teacher_logits = teacher(batch).float()
    loss = F.cross_entropy(logits.float(), labels)
    if teacher is not None:
        loss = loss + distillation_loss(logits.float(), teacher_logits, recipe.temperature)
    return loss


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()
