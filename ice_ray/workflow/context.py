"""What the stages of one job share: the plan, the folder, the cluster's resources, the time of each part."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ice_ray.cluster.session import cluster_cpus, cluster_gpus, placements, require
from ice_ray.cluster.workload import DenseModel, Workload
from ice_ray.errors import UserError
from ice_ray.ingest.load import StageImages, StreamedImages, load
from ice_ray.ingest.roles import Rows
from ice_ray.observe.terminal import say, warn
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.replay.run import WorkerResources
from ice_ray.training.precision import resolve
from ice_ray.workflow.plan import Plan
from ice_ray.workflow.run_folder import RunFolder

_MOST_CPUS_A_WORKER = 8


@dataclass
class JobContext:
    """One job as it runs.

    Attributes:
        commands: what makes its result, in order, for whoever wants it again.
        times: seconds of each part on the driver's wall, filled in order.
    """

    plan: Plan
    folder: RunFolder
    commands: tuple[str, ...]
    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.times[part] = self.times.get(part, 0.0) + time.perf_counter() - started

    def load(self, rows: Rows) -> StageImages:
        """Decode rows into the object store, or see that they can be streamed; what had to be skipped is said once."""
        config, shape = self.plan.config, self.plan.image_shape
        loaded = load(self.plan.dataset, rows, config.data_errors, shape, config.images)
        if isinstance(loaded, StreamedImages):
            gigabytes = len(rows) * math.prod(shape) / 1e9
            say(f"{len(rows)} images of split {rows.split} ({gigabytes:.1f} GB decoded) are decoded for every pass")
        if loaded.skipped:
            warn(
                f"{len(loaded.skipped)} of {len(rows)} images of split {rows.split} skipped; first: {loaded.skipped[0]}"
            )
        return loaded

    def workload(
        self,
        model: DenseModel,
        train: StageImages,
        decide: StageImages,
        settings: PruningSettings,
        final: StageImages | None = None,
    ) -> Workload:
        """The workload of a stage."""
        plan = self.plan
        return Workload(model, train, decide, plan.preprocessing, settings, plan.config.precision, final)

    def trial_gpus(self) -> float:
        """GPUs of a trial, checked against the cluster with the CPUs.

        Raises:
            UserError: no node can serve a trial.
        """
        gpus = self._gpus(self.plan.config.search.gpus)
        require("a trial (--search.cpus, --search.gpus)", self.plan.config.search.cpus, gpus)
        return gpus

    def worker_resources(self) -> WorkerResources:
        """Stage 2's processes, checked against the cluster.

        Raises:
            UserError: the cluster cannot serve them.
        """
        config = self.plan.config
        replay = config.replay
        gpus = self._gpus(replay.gpus)
        most = int(cluster_gpus() / gpus) if gpus else min(2, int(cluster_cpus()))
        workers = replay.workers or max(1, most)
        cpus = replay.cpus or next(
            (float(each) for each in range(_MOST_CPUS_A_WORKER, 1, -1) if placements(each, gpus) >= workers), 1.0
        )
        require("stage 2 (--replay.workers, --replay.cpus, --replay.gpus)", cpus, gpus, workers)
        if config.batch_size < 2 * workers:
            raise UserError(f"--batch-size {config.batch_size} gives {workers} workers fewer than 2 images each")
        return WorkerResources(workers, cpus, gpus)

    def _gpus(self, asked: float | None) -> float:
        """GPUs of a process: as asked for, else one where there are any.

        Raises:
            UserError: arithmetic that needs one, and there is none.
        """
        gpus = asked if asked is not None else 1.0 if cluster_gpus() >= 1 else 0.0
        resolve(self.plan.config.precision, torch.device("cuda" if gpus else "cpu"))
        return gpus
