"""The fine-tune: a few epochs of SGD at a bounded learning rate, with some layers held fixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.data.batches import Shard, check_epoch, training_batches
from ice_ray.data.images import ImageSource, Preprocessing
from ice_ray.errors import require
from ice_ray.models.answers import logits_of
from ice_ray.randomness import seed_of
from ice_ray.training.config import FineTuneConfig, Precision
from ice_ray.training.precision import autocast


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL divergence from the teacher's softened classes to the student's, mean over the batch (section IV-A).

    As in the paper's CIFAR-10 recipe there is no factor T^2.

    Args:
        logits, teacher_logits: (n, classes), float32, the teacher's without gradient.
        temperature: T, which divides both; 2 in the recipe.
    """
    return F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


@dataclass(frozen=True)
class Recipe:
    """How every fine-tune of a stage is done (section IV-A, table I).

    Attributes:
        batch_size: images per SGD step over all processes together.
        options: the loss: labels and distillation.
        momentum, weight_decay: of SGD, which is made afresh for every fine-tune.
        precision: number type of the arithmetic.
    """

    batch_size: int = 128
    options: FineTuneConfig = FineTuneConfig()
    momentum: float = 0.9
    weight_decay: float = 1e-4
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        require(self, "batch_size", self.batch_size >= 2, "must be at least 2")


@dataclass(frozen=True)
class StepCheck:
    """A question asked inside a fine-tune.

    Attributes:
        every: SGD steps between two times.
        enough: True ends the fine-tune there.
    """

    every: int
    enough: Callable[[], bool]


def fine_tune(
    model: nn.Module,
    images: ImageSource,
    preprocessing: Preprocessing,
    recipe: Recipe,
    rate: Callable[[float], float],
    epochs: float,
    key: tuple[int | str, ...],
    teacher: Callable[[Tensor], Tensor] | None = None,
    shard: Shard = Shard(),
    enough: Callable[[], bool] = lambda: False,
    step_check: StepCheck | None = None,
    after_step: Callable[[], None] | None = None,
) -> tuple[int, Tensor]:
    """Train `model` in place for some epochs.

    Returns how many images it saw over all processes, and this process's losses, (SGD steps,) on the device; not all
    finite where training diverged, which only all processes together can decide.

    Args:
        model: may be wrapped for data-parallel training; only parameters that require a gradient are touched.
        epochs: a part of one ends with the batch that completes it.
        rate: the learning rate, from progress: the share of all images of all epochs that has been seen in the middle
            of the batch, in (0, 1].
        key: names the random choices (seed, step, purpose); the epoch is added to it.
        teacher: the unpruned model in eval mode, or what answers the batches as it would; or None.
        enough: asked after each epoch but the last; True ends the training there.
        step_check: asked inside epochs.
        after_step: called after every SGD step.

    Raises:
        UserError: an epoch would have no step.
    """
    check_epoch(len(images), shard.world)
    seen = steps = 0
    ended = False
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = images.device
    optimizer = torch.optim.SGD(
        parameters,
        lr=rate(0.0),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cuda", "cpu"),
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    losses: list[Tensor] = []
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        for epoch in range(math.ceil(epochs)):
            model.train()
            torch.manual_seed(seed_of(*key, epoch, "model", shard.rank))  # dropout and the like
            in_epoch = 0
            for batch, labels, rows in training_batches(images, preprocessing, recipe.batch_size, (*key, epoch), shard):
                for group in optimizer.param_groups:
                    # In the middle of the batch: where a schedule warms up from 0 no step is for nothing.
                    group["lr"] = rate(min((epoch + (in_epoch + rows / 2) / len(images)) / epochs, 1.0))
                loss = _loss(model, batch, labels, recipe, teacher)
                # Gradients are averaged over processes: weigh each by its share of the rows, so that the average
                # is that of the global batch even where it does not divide evenly.
                scaler.scale(loss * (len(labels) * shard.world / rows)).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                if after_step is not None:
                    after_step()
                losses.append(loss.detach())
                seen += rows
                in_epoch += rows
                steps += 1
                ended = step_check is not None and steps % step_check.every == 0 and step_check.enough()
                if ended or seen >= epochs * len(images):
                    break
            model.eval()
            if ended or (epoch < epochs - 1 and enough()):
                break
    model.eval()
    return seen, torch.stack(losses)


def _loss(
    model: nn.Module, batch: Tensor, labels: Tensor, recipe: Recipe, teacher: Callable[[Tensor], Tensor] | None
) -> Tensor:
    with autocast(recipe.precision, batch.device):
        logits = logits_of(model(batch))
        if teacher is not None:
            with torch.inference_mode():
                taught = logits_of(teacher(batch)).float()
            teacher_logits = taught.clone()  # the loss keeps it for its gradient, which an inference tensor forbids
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.options.label_smoothing)
    if teacher is not None:
        own = recipe.options
        loss = loss + own.distil_weight * distillation_loss(logits.float(), teacher_logits, own.temperature)
    return loss
