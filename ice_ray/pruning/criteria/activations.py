"""Criteria that look at activations: one pass over the calibration images, running sums, no batch kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_ray.models.answers import logits_of
from ice_ray.pruning.criteria.base import Criterion, Reduction, ScoringContext


class Statistic(ABC):
    """What is summed up of one layer's activations; its size does not depend on how many images there are."""

    @abstractmethod
    def update(self, maps: Tensor, gradients: Tensor | None) -> None:
        """Take in a batch.

        Args:
            maps: (n, filters, positions) float32, the activations: ReLU of the normalised outputs.
            gradients: of the loss of each image by its maps, where the criterion asks for them.
        """

    @abstractmethod
    def scores(self, reduction: Reduction) -> Tensor:
        """(filters,) scores over the images of all processes."""


class StreamingCriterion(Criterion):
    """Scores from activations, ReLU(BN(layer)) as in the paper, or ReLU(layer) where no batch norm follows."""

    passes = 1.0
    needs_gradients = False

    @abstractmethod
    def statistic(self, filters: int, device: torch.device) -> Statistic:
        """A fresh statistic of one layer."""

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        device = next(context.model.parameters()).device
        statistics = {
            layer: self.statistic(len(places), device)
            for unit in context.units
            for layer, places in context.rows_of(unit)
        }
        with _observed(context, self.needs_gradients) as outputs:
            for images, labels in context.batches():
                with torch.set_grad_enabled(self.needs_gradients):
                    logits = logits_of(context.model(images))
                if self.needs_gradients:
                    F.cross_entropy(logits.float(), labels, reduction="sum").backward()
                for layer, output in outputs:
                    first = isinstance(context.model.get_submodule(layer), nn.Conv2d)
                    # A call that the loss does not depend on has no gradient: removing it would change nothing.
                    gradient = output.grad if output.grad is not None else torch.zeros_like(output)
                    maps = _maps(output.detach(), first).relu()
                    statistics[layer].update(maps, _maps(gradient, first) if self.needs_gradients else None)
                outputs.clear()
        scores = {layer: statistic.scores(context.reduction) for layer, statistic in statistics.items()}
        return context.summed(scores.get)


@contextmanager
def _observed(context: ScoringContext, needs_gradients: bool) -> Iterator[list[tuple[str, Tensor]]]:
    """Catch the units' normalised outputs while the block runs: (layer, output) of every call."""
    outputs: list[tuple[str, Tensor]] = []
    layers = [layer for unit in context.units for layer, _ in context.rows_of(unit)]
    paths = {layer: context.norms.get(layer) or layer for layer in layers}
    required = {parameter: parameter.requires_grad for parameter in context.model.parameters()}
    context.model.requires_grad_(False)  # only the activations' gradients are wanted, in frozen layers too
    handles = [
        context.model.get_submodule(path).register_forward_hook(_catch(layer, outputs, needs_gradients))
        for layer, path in paths.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
        for parameter, requires in required.items():
            parameter.requires_grad_(requires)


def _catch(
    layer: str, outputs: list[tuple[str, Tensor]], needs_gradients: bool
) -> Callable[[nn.Module, object, Tensor], Tensor]:
    """A hook that keeps the output and hands on a copy: what follows may work in place (ReLU, SiLU)."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        kept = output
        if needs_gradients:
            # Nothing below the first of them needs a gradient: the backward pass stops there.
            kept = output if output.requires_grad else output.detach().requires_grad_()
            kept.retain_grad()
        outputs.append((layer, kept))
        return kept.clone()

    return hook


def _maps(output: Tensor, channels_first: bool) -> Tensor:
    """(n, filters, positions) float32 from a convolution's (n, C, H, W) or a linear layer's (n, ..., C)."""
    moved = output if channels_first else output.movedim(-1, 1)
    return moved.float().reshape(len(moved), moved.shape[1], -1)


class _Mean(Statistic):
    """The mean over the images of what is made of the activations and gradients of each.

    Args:
        each: from (n, filters, positions), float64, to (n, filters).
    """

    def __init__(self, filters: int, device: torch.device, each: Callable[[Tensor, Tensor | None], Tensor]) -> None:
        self._total = torch.zeros(filters, dtype=torch.float64, device=device)
        self._images, self._each = 0, each

    def update(self, maps: Tensor, gradients: Tensor | None) -> None:
        self._total += self._each(maps.double(), None if gradients is None else gradients.double()).sum(dim=0)
        self._images += len(maps)

    def scores(self, reduction: Reduction) -> Tensor:
        images = torch.tensor(float(self._images), dtype=torch.float64, device=self._total.device)
        return reduction.sum(self._total) / reduction.sum(images)


class MeanActivation(StreamingCriterion):
    """Mean over the images of the spatial mean of the activations: filters that hardly fire matter least."""

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Mean(filters, device, lambda maps, _: maps.mean(dim=2))


class Taylor(StreamingCriterion):
    """First-order Taylor expansion (Molchanov et al. 2017), how much the loss would change without the filter: mean
    over the images of |spatial mean of activation x gradient|, the gradient of each image's cross entropy.

    Activations count where they are positive, as behind a ReLU: there activation x gradient is the same before and
    after it.
    """

    passes = 3.0
    needs_gradients = True

    def statistic(self, filters: int, device: torch.device) -> Statistic:
        return _Mean(filters, device, _product)


def _product(maps: Tensor, gradients: Tensor | None) -> Tensor:
    assert gradients is not None
    return (maps * gradients).mean(dim=2).abs()
