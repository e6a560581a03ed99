"""The options of stage 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ice_ray.engine.cost import Clock
from ice_ray.errors import UserError
from ice_ray.objectives import check_objective

Algorithm = Literal["grid", "random", "tpe", "gp"]
_MOST_TRIALS = 100_000


@dataclass(frozen=True)
class SearchConfig:
    """Stage 1: the search (Ray Tune)."""

    algorithm: Algorithm = "grid"
    """Where trials' hyperparameters come from: grid = the points of the space; random = draws from the box between
    its least and greatest values; tpe, gp = Optuna's samplers in that box, which learn from trials that have ended."""
    trials: int | None = None
    """Trials to run. Of the grid that many points in seeded random order, all of them without it; the other
    algorithms need it."""
    warm_start: str | None = None
    """best.json of an earlier run, whose winner is tried first, as one of the trials."""
    concurrent: int | None = None
    """Trials that run at once at most, for tpe and gp to learn from more of them. [default: as many as fit]"""
    subsample: float | None = None
    """Share of the training images that trials fine-tune on, in (0, 1], stratified. [default: 0.02, or 0.1 for
    ice-plus, one-shot, imp and bimp; digits 0.5]"""
    eval_images: int = 1000
    """Validation images that trials measure accuracy on, stratified (all, where there are fewer)."""
    batch_size: int | None = None
    """Images per SGD step of a trial: on few images smaller ones take more steps, and rank trials better (README).
    [default: 32, or --batch-size where that is smaller or trials have as many images as the replay]"""
    epochs: int = 1
    """Epochs per fine-tune of a trial, at most: it ends after the one that brings the drop below the threshold."""
    cpus: float = 1.0
    """CPUs of a trial; its threads are set from it."""
    gpus: float | None = None
    """GPUs of a trial, whole or a fraction; its memory is capped at it. [default: 1 where there are GPUs, else 0]"""
    objective: str = "auto"
    """How the winner is chosen: eq2 = least eq. 2 cost; nearly-best = the fastest of the trials within 0.5 points of
    the smallest drop; auto = eq2, or nearly-best where eq2 would reward being slow or worse; constrained = the fastest
    that loses at most --search.max-drop; pareto = the knee of the front of time and drop; package.module:function =
    yours."""
    max_drop: float | None = None
    """Points of accuracy a trial may lose, for --search.objective constrained."""
    clock: Clock = "wall"
    """Pruning time on the wall's clock, or from the arithmetic done over a speed (work)."""
    work_speed: float | None = None
    """Operations a second of the work clock; given, it repeats exactly. [default: calibrated on one device, alone]"""
    lr_tolerance: float = 1e-3
    """Step of the logarithmic grid that eq. 1's learning rates are rounded to (1e-3 = 0.1%); 0 rounds nothing."""
    share_work: bool = True
    """Whether what trials have in common is carried out once; a trial's result is the same either way."""
    store_memory_gb: float = 2.0
    """Gigabytes of networks that trials share in memory; beyond them they are read from the run's folder."""
    store_disk_gb: float = 20.0
    """Gigabytes of networks in the run's folder while the search runs; beyond them they are made again if needed."""
    max_failures: int = 3
    """How often a trial whose process died is started again, from its last step."""

    def __post_init__(self) -> None:
        if self.trials is not None and not 1 <= self.trials <= _MOST_TRIALS:
            raise UserError(f"--search.trials {self.trials} must be at least 1 and at most {_MOST_TRIALS}")
        if self.trials is None and self.algorithm != "grid":
            raise UserError(f"--search.algorithm {self.algorithm} needs --search.trials, how many trials to run")
        if self.concurrent is not None and self.concurrent < 1:
            raise UserError(f"--search.concurrent {self.concurrent} must be at least 1")
        check_objective(self.objective, self.max_drop)
        if self.subsample is not None and not 0 < self.subsample <= 1:
            raise UserError(f"--search.subsample {self.subsample} must be in (0, 1]")
        if self.eval_images < 1:
            raise UserError(f"--search.eval-images {self.eval_images} must be at least 1")
        if self.batch_size is not None and self.batch_size < 2:
            raise UserError(f"--search.batch-size {self.batch_size} must be at least 2")
        if self.epochs < 1:
            raise UserError(f"--search.epochs {self.epochs} must be at least 1")
        if not 0 < self.cpus < math.inf:
            raise UserError(f"--search.cpus {self.cpus} must be above 0")
        if self.gpus is not None and not (0 <= self.gpus <= 1 or (1 < self.gpus < math.inf and self.gpus % 1 == 0)):
            raise UserError(f"--search.gpus {self.gpus} must be a fraction up to 1 or a whole number")
        if self.work_speed is not None and not 0 < self.work_speed < math.inf:
            raise UserError(f"--search.work-speed {self.work_speed} must be above 0")
        if not 0 <= self.lr_tolerance <= 1:
            raise UserError(f"--search.lr-tolerance {self.lr_tolerance} must be in [0, 1]")
        if not (self.store_memory_gb >= 0 and self.store_disk_gb >= 0):
            raise UserError(
                f"--search.store-memory-gb {self.store_memory_gb} and --search.store-disk-gb {self.store_disk_gb} "
                "must be at least 0"
            )
        if self.max_failures < 0:
            raise UserError(f"--search.max-failures {self.max_failures} must be at least 0")
