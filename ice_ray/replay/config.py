"""The options of stage 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ice_ray.errors import require, require_kinds


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
    max_failures: int = 3
    """How often the group is started again after a worker died, from the last step."""

    def __post_init__(self) -> None:
        require_kinds(self)
        require(self, "workers", self.workers is None or self.workers >= 1, "must be at least 1")
        require(self, "cpus", self.cpus is None or 0 < self.cpus < math.inf, "must be above 0")
        possible = self.gpus in (None, 0, 1) or (0 < (self.gpus or 0) < 1 and self.workers == 1)
        require(self, "gpus", possible, "must be 0 or 1, or a fraction with 1 worker")
        require(self, "subsample", 0 < self.subsample <= 1, "must be in (0, 1]")
        require(self, "max_failures", self.max_failures >= 0, "must be at least 0")
