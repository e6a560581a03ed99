"""The options of every fine-tune, and number types by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from ice_ray.errors import require, require_kinds
from ice_ray.training.schedules import Schedule

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class FineTuneConfig:
    """How fine-tunes are done, in both stages."""

    distil: bool = True
    """Learn from the unpruned model too (the paper does on CIFAR-10)."""
    temperature: float = 2.0
    """T of the distillation."""
    distil_weight: float = 1.0
    """Weight of the distillation beside the cross entropy."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require(self, "temperature", 0 < self.temperature < math.inf, "must be above 0")
        require(self, "distil_weight", 0 <= self.distil_weight < math.inf, "must be at least 0")
        require(self, "label_smoothing", 0 <= self.label_smoothing < 1, "must be in [0, 1)")


@dataclass(frozen=True)
class StepFineTuneConfig(FineTuneConfig):
    """How fine-tunes after pruning steps are done, in both stages."""

    schedule: Schedule = "constant"
    """Learning rate inside a fine-tune, under its bound: constant (the paper); cosine, to nothing at its end; or
    linear, the same after a tenth of warming up."""
    epochs: int = 1
    """Epochs per fine-tune, at most: ice ends it after the one that brings the drop below the threshold."""
    replay_epochs: int | None = None
    """The same for stage 2. [default: as --fine-tune.epochs]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "epochs", self.epochs >= 1, "must be at least 1")
        require(self, "replay_epochs", self.replay_epochs is None or self.replay_epochs >= 1, "must be at least 1")

    def for_replay(self) -> Self:
        """As stage 2 has it."""
        return replace(self, epochs=self.replay_epochs or self.epochs)
