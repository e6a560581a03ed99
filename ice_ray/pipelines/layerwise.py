"""Pipelines that take a share of every layer: which filters of a step's layers go, and their repair."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from ice_ray.engine.actions import Outcome, Prune, Repair, Score, SnapshotId
from ice_ray.engine.executor import Executor
from ice_ray.errors import require
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.pruning.selection import lowest
from ice_ray.repair.config import RepairKind

Allocate = Literal["uniform", "error"]
_FEWEST_TO_FIT = 8
"""Calibration images with which two judge what a repair has fitted to the others."""


@dataclass(frozen=True)
class LayerwiseConfig(PipelineConfig):
    """The options of pipelines that take a share of every layer."""

    prune: LayerwisePruneConfig = field(default_factory=LayerwisePruneConfig)
    allocate: Allocate = "error"
    """How --target is shared out: error = every layer keeps the width with which the network's answers, on a few
    calibration images, change least; uniform = one ratio for all layers."""
    criterion: str = "l1"
    """Which filters go first: l1, l2, bn-scale, taylor, mean-activation, entropy, entropy-densities (the authors'),
    l2-fan-in, residual (what least squares cannot make up for stays), random, or package.module:Class."""
    calibration_images: int = 1000
    """Training images that criteria which look at activations, and repairs, look at."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "calibration_images", self.calibration_images >= 1, "must be at least 1")

    @property
    def amounts(self) -> Amounts:
        return Amounts(self.ratio, self.prune.by_layer, self.prune.round_to)

    @property
    def allocates(self) -> bool:
        return self.allocate == "error"

    @property
    def own_code(self) -> dict[str, str]:
        return {"criterion": self.criterion}


@dataclass(frozen=True)
class RepairingConfig(LayerwiseConfig):
    """The options of pipelines that may repair what a step has removed."""

    repair: RepairKind = "none"
    """Repair after every removal, without labels: none (the paper); bn = batch-norm statistics estimated anew;
    least-squares = the layers around refitted, so that the sums behind are those of the dense model; reconstruction =
    these layers then trained by themselves towards the same."""
    reconstruction_epochs: float = 2.0
    """Passes over the calibration images, but for those that judge, for every step, of a reconstruction; 0 = none."""
    joint_epochs: float = 6.0
    """Passes over them after the last step, in which the layers of all steps are reconstructed together; 0 = none."""
    rung_epochs: float = 4.0
    """As --joint-epochs, on every rung of a ladder (--target macs=0.8,0.6,0.4), divided by the share that it leaves
    (0.4: 10): each takes as long. Its steps, which take little each, are refitted by least squares alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.repair not in ("none", "bn")
        enough = not fits or self.calibration_images >= _FEWEST_TO_FIT
        require(self, "calibration_images", enough, f"must be at least {_FEWEST_TO_FIT} for repair {self.repair}")
        for name in ("reconstruction_epochs", "joint_epochs", "rung_epochs"):
            require(self, name, 0 <= getattr(self, name) < math.inf, "must be at least 0")

    def on_rung(self, share: float) -> Self:
        return replace(self, reconstruction_epochs=0.0, joint_epochs=self.rung_epochs / share)


Removed = tuple[tuple[str, tuple[int, ...]], ...]
"""Per layer, indices of filters as the layer is now."""


def choose_removal(
    executor: Executor, snapshot: SnapshotId, step: int, config: LayerwiseConfig
) -> tuple[Removed, Outcome]:
    """The filters of the lowest scores of each unit of the step, and the outcome of scoring."""
    scored = executor.run(snapshot, Score(step, config.criterion, config.calibration_images))
    amounts = executor.network.amounts or config.amounts
    removed = tuple(
        (unit.layer, lowest(scored.value[unit.layer], amounts.removed_now(unit), unit.groups))
        for unit in executor.network.steps[step - 1].units
    )
    return removed, scored


def removal_action(removed: Removed, step: int, config: RepairingConfig, is_last: bool) -> Prune | Repair:
    """What takes the chosen filters: removal alone, or removal and repair."""
    if config.repair == "none":
        return Prune(removed)
    epochs, together = 0.0, 0.0
    if config.repair == "reconstruction":
        epochs, together = config.reconstruction_epochs, config.joint_epochs if is_last else 0.0
    return Repair(step, config.repair, removed, config.calibration_images, epochs, config.criterion, together)
