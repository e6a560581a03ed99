"""What is known of a step's network to those who look at images: criteria and repairs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ice_ray.pruning.units import PrunableUnit

Batch = tuple[Tensor, Tensor]


class Reduction(Protocol):
    """What several processes that score together do with their parts; each has its share of the images."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over processes, on every process."""

    def max(self, value: Tensor) -> Tensor:
        """The greatest over processes, element by element, on every process."""


Resuming = Callable[[nn.Module, int], AbstractContextManager[object]]


class CalibrationImages(Protocol):
    """The calibration images one by one, by their places among those of all processes.

    Attributes:
        count: of all processes.
        held: (count,) bool, which of them are this process's.
    """

    count: int
    held: Tensor

    def passing(self, network: nn.Module, indices: Tensor) -> AbstractContextManager[Tensor]:
        """While its block runs, passes of these images of this process's, through the network or the dense one, begin
        behind what lies before the step; gives what to call the network with: normalised images (n, C, H, W) on the
        model's device, or, where nothing looks at them any more, something of their shape. Places ascend.
        """


def from_the_start(network: nn.Module, number: int) -> AbstractContextManager[object]:
    """Passes are whole ones."""
    return nullcontext()


@dataclass(frozen=True)
class ScoringContext:
    """What criteria and repairs may look at.

    Attributes:
        model: the network as it stands, in eval mode; criteria do not change it.
        units: whose filters to score: those of one step.
        norms: the batch norm that directly follows each layer, where one does.
        key: (seed, step, ...) that names the criterion's random choices, if it makes any.
        batches: this process's share of the calibration images, from the start at every call: normalised images
            (n, C, H, W) and labels (n,), on the model's device.
        reduction: over processes.
        dense: the network as it was before anything was pruned, in eval mode; not to be changed.
        rank: this process's number, for random choices that are its own.
        known: what has been worked out of this very network, for others who ask; kept as long as it stays as it is.
        resuming: while its block runs, passes of the batch of that number, through the network or the dense one, begin
            behind what lies before the step; without gradients, in full precision.
        residual_branches: layers whose output, behind the norm, is but a term of a sum.
        answers: after the last step, the layer whose outputs are the network's, where one can be refitted.
        calibration_set: gives the images one by one; whoever reconstructs needs it.
        fixed: layers whose weights no repair may change.
    """

    model: nn.Module
    units: tuple[PrunableUnit, ...]
    norms: Mapping[str, str | None]
    key: tuple[int | str, ...]
    batches: Callable[[], Iterator[Batch]]
    reduction: Reduction
    dense: Callable[[], nn.Module]
    rank: int = 0
    known: dict[str, Any] = field(default_factory=dict)
    resuming: Resuming = from_the_start
    residual_branches: Collection[str] = ()
    answers: str | None = None
    calibration_set: Callable[[], CalibrationImages] | None = None
    fixed: Collection[str] = ()

    def weight(self, unit: PrunableUnit) -> Tensor:
        """(filters, weights of each) float32: a unit's weights, a row per filter."""
        return self.model.get_parameter(f"{unit.layer}.weight").detach().float().flatten(1)
