"""Training as the benchmarks do it, the same for every tool that they compare: SGD along a cosine, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from cifar import normalised
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH = 128
TEMPERATURE = 4.0  # of the distillation


def augmented(images: Tensor) -> Tensor:
    """Normalised, each row of the batch cropped at a place of its own out of 4 black pixels around; half are flipped.

    Black, and not the mean, is what the published networks have seen there: their batch norms' statistics are of that.
    """
    padded = normalised(F.pad(images, (4, 4, 4, 4)))
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # (N, 3, 9, 9, 32, 32), a view
    down, right = torch.randint(0, 9, (2, len(images)), device=images.device)
    cropped = windows[torch.arange(len(images), device=images.device), :, down, right]
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, cropped, cropped.flip(3))


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    rate: float,
    seed: int,
    teacher: nn.Module | None = None,
) -> None:
    """Train `model` in place: momentum 0.9, weight decay 5e-4, whole batches only.

    Args:
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
        rate: of the first step; along half a cosine it falls to 0.
        teacher: whose softened answers the model learns as well, half the loss.
    """
    torch.manual_seed(seed)
    model.train().to(memory_format=torch.channels_last)
    steps = len(images) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            batch = augmented(images[rows]).to(memory_format=torch.channels_last)
            logits = model(batch)
            loss = F.cross_entropy(logits, labels[rows])
            if teacher is not None:
                loss = 0.5 * loss + 0.5 * _distance(logits, teacher, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def _distance(logits: Tensor, teacher: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = F.log_softmax(teacher.eval()(batch) / TEMPERATURE, 1)
    own = F.log_softmax(logits / TEMPERATURE, 1)
    return TEMPERATURE**2 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Mean and variance of every batch norm, in place: the plain mean over batches, normalised (N, C, H, W)."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
