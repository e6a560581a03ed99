"""The options of stage 1."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from ice_ray.engine.cost import Clock
from ice_ray.errors import require, require_kinds
from ice_ray.objectives import check_objective

Algorithm = Literal["grid", "random", "tpe", "gp"]
_MOST_TRIALS = 100_000


@dataclass(frozen=True)
class SearchConfig:
    """Stage 1: the search (Ray Tune)."""

    algorithm: Algorithm = "grid"
    """Where trials' hyperparameters come from: grid = the points of the space; random = draws between its
    least and greatest values; tpe, gp = Optuna's samplers between them, which learn from trials that have ended."""
    trials: int | None = None
    """Trials to run. Of the grid that many points in seeded random order, all of them without it; the other
    algorithms need it."""
    warm_start: str | None = None
    """best.json of an earlier run, whose winner is tried first, as one of the trials."""
    concurrent: int | None = None
    """Trials that run at once at most, for tpe and gp to learn from more of them. [default: as many as fit]"""
    subsample: float | None = None
    """Share of the training images that trials fine-tune on, in (0, 1], stratified. [default: 0.1, or 0.02 for
    baseline and aap; digits 0.5]"""
    eval_images: int = 1000
    """Validation images that trials measure accuracy on, stratified (all, where there are fewer)."""
    batch_size: int | None = None
    """Images per SGD step of a trial: on few images smaller ones take more steps, and rank trials better.
    [default: 32, or --batch-size where that is smaller or trials have as many images as the replay]"""
    cpus: float = 1.0
    """CPUs of a trial; its threads are set from it."""
    gpus: float | None = None
    """GPUs of a trial, whole or a fraction; its memory is capped at it. [default: 1 where there are GPUs, else 0]"""
    objective: str = "nearly-best"
    """How the winner is chosen: nearly-best = the fastest of the trials within 0.5 points of the smallest drop; eq2 =
    least eq. 2 cost (the paper); auto = eq2, or nearly-best where eq2 would reward being slow or worse; constrained =
    the fastest that loses at most --search.max-drop; pareto = the knee of the front of time and drop;
    package.module:function = yours."""
    max_drop: float | None = None
    """Points of accuracy a trial may lose, for --search.objective constrained."""
    clock: Clock = "wall"
    """Pruning time on the wall's clock, or from the arithmetic done over a speed (work)."""
    work_speed: float | None = None
    """Operations a second of the work clock; given, it repeats exactly. [default: calibrated on one device, alone]"""
    share_work: bool = True
    """Whether what trials have in common is carried out once; a trial's result is the same either way."""
    store_memory_gb: float = 2.0
    """Gigabytes of networks that trials share in memory; beyond them they are read from the run's folder."""
    store_disk_gb: float = 20.0
    """Gigabytes of networks in the run's folder while the search runs; beyond them they are made again if needed."""
    max_failures: int = 3
    """How often a trial whose process died is started again, from its last step."""

    def __post_init__(self) -> None:
        if isinstance(self.warm_start, os.PathLike):
            object.__setattr__(self, "warm_start", os.fspath(self.warm_start))
        require_kinds(self)
        most = f"must be at least 1 and at most {_MOST_TRIALS}"
        require(self, "trials", self.trials is None or 1 <= self.trials <= _MOST_TRIALS, most)
        needs = "needs search.trials, how many trials to run"
        require(self, "algorithm", self.trials is not None or self.algorithm == "grid", needs)
        require(self, "concurrent", self.concurrent is None or self.concurrent >= 1, "must be at least 1")
        check_objective(self.objective, self.max_drop)
        require(self, "subsample", self.subsample is None or 0 < self.subsample <= 1, "must be in (0, 1]")
        require(self, "eval_images", self.eval_images >= 1, "must be at least 1")
        require(self, "batch_size", self.batch_size is None or self.batch_size >= 2, "must be at least 2")
        require(self, "cpus", 0 < self.cpus < math.inf, "must be above 0")
        whole = self.gpus is None or 0 <= self.gpus <= 1 or (1 < self.gpus < math.inf and self.gpus % 1 == 0)
        require(self, "gpus", whole, "must be a fraction up to 1 or a whole number")
        require(self, "work_speed", self.work_speed is None or 0 < self.work_speed < math.inf, "must be above 0")
        require(self, "store_memory_gb", self.store_memory_gb >= 0, "must be at least 0")
        require(self, "store_disk_gb", self.store_disk_gb >= 0, "must be at least 0")
        require(self, "max_failures", self.max_failures >= 0, "must be at least 0")
