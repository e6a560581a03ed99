"""The options of stage 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ice_ray.errors import UserError
from ice_ray.training.schedules import Schedule


@dataclass(frozen=True)
class ReplayConfig:
    """Stage 2: the replay (Ray Train, data-parallel)."""

    workers: int | None = None
    """Processes that train together; the batch is split among them. [default: one a GPU, else one a CPU, at most 2]"""
    cpus: float | None = None
    """CPUs of a worker; its threads are set from it. [default: the cluster's CPUs shared out, at most 8]"""
    gpus: float | None = None
    """GPUs of a worker. [default: 1 where there are GPUs, else 0]"""
    subsample: float = 1.0
    """Share of the training images to fine-tune on, in (0, 1], stratified."""
    epochs: int = 1
    """Epochs of each fine-tune, at most: it ends after the one that brings the drop below the threshold."""
    final_epochs: int = 0
    """Epochs of one more fine-tune after the last step."""
    final_subsample: float | None = None
    """Share of the training images that the final epochs train on. [default: as --replay.subsample]"""
    final_rate_factor: float = 2.0
    """Learning rate of the final epochs, times eq. 1's bound (2 in the authors' program)."""
    final_rate: float | None = None
    """Their learning rate, in place of that."""
    final_schedule: Schedule | None = None
    """Their schedule: constant, cosine or linear. [default: as --fine-tune.schedule]"""
    max_failures: int = 3
    """How often the group is started again after a worker died, from the last step."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--replay.workers {self.workers} must be at least 1")
        if not 0 < self.subsample <= 1:
            raise UserError(f"--replay.subsample {self.subsample} must be in (0, 1]")
        if self.final_subsample is not None and not 0 < self.final_subsample <= 1:
            raise UserError(f"--replay.final-subsample {self.final_subsample} must be in (0, 1]")
        if self.epochs < 1:
            raise UserError(f"--replay.epochs {self.epochs} must be at least 1")
        if self.final_epochs < 0:
            raise UserError(f"--replay.final-epochs {self.final_epochs} must be at least 0")
        if not 0 < self.final_rate_factor < math.inf:
            raise UserError(f"--replay.final-rate-factor {self.final_rate_factor} must be above 0")
        if self.final_rate is not None and not 0 < self.final_rate < math.inf:
            raise UserError(f"--replay.final-rate {self.final_rate} must be above 0")
        if self.cpus is not None and not 0 < self.cpus < math.inf:
            raise UserError(f"--replay.cpus {self.cpus} must be above 0")
        if self.gpus is not None and not (
            self.gpus == 1 or self.gpus == 0 or (0 < self.gpus < 1 and self.workers == 1)
        ):
            raise UserError(f"--replay.gpus {self.gpus} must be 0 or 1, or a fraction with --replay.workers 1")
        if self.max_failures < 0:
            raise UserError(f"--replay.max-failures {self.max_failures} must be at least 0")
