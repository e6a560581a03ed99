"""What the stages of one job share: the plan, the folder, the cluster's resources, the time of each part."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from ice_ray.claims.claim import Claim
from ice_ray.cluster.capacity import (
    Request,
    check_possible,
    cluster_cpus,
    cluster_gpus,
    has_gpus,
    placements,
    provide,
)
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.workload import DenseModel, Workload
from ice_ray.errors import UserError
from ice_ray.ingest.load import StageImages, StreamedImages, load
from ice_ray.ingest.roles import Rows
from ice_ray.observe.live import waiting
from ice_ray.observe.output import run_log
from ice_ray.observe.terminal import say, warn
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.replay.run import WorkerResources
from ice_ray.training.precision import resolve
from ice_ray.wording import counted
from ice_ray.workflow.plan import Plan
from ice_ray.workflow.run_folder import RunFolder

_MOST_CPUS_A_WORKER = 8


@dataclass
class JobContext:
    """One job as it runs.

    Attributes:
        claim: to the folder.
        commands: what makes its result, in order, for whoever wants it again.
        times: seconds of each part on the driver's wall, filled in order.
    """

    plan: Plan
    folder: RunFolder
    claim: Claim
    commands: tuple[str, ...]
    times: dict[str, float] = field(default_factory=dict)

    @property
    def fault_log(self) -> FaultLog:
        """What this run has gone on after."""
        return FaultLog.of(self.folder.path)

    def keep_log(self) -> None:
        """Keep what is said, and what has been said so far, in the folder, which is there."""
        run_log.begin(self.folder.log, self.commands[-1])

    @contextmanager
    def timed(self, part: str, watched: bool = False) -> Iterator[None]:
        """Add the time of the block to `part`, and on a terminal say that it is at it.

        Args:
            watched: the block shows more of itself than that.
        """
        started = time.perf_counter()
        try:
            with nullcontext() if watched else waiting(part):
                yield
        finally:
            self.times[part] = self.times.get(part, 0.0) + time.perf_counter() - started

    def load(self, rows: Rows) -> StageImages:
        """Decode rows into the object store, or see that they can be streamed; what had to be skipped is said once."""
        config, shape = self.plan.config, self.plan.image_shape
        loaded = load(self.plan.dataset, rows, config.data_errors, shape, config.images)
        if isinstance(loaded, StreamedImages):
            gigabytes = len(rows) * math.prod(shape) / 1e9
            say(f"split {rows.split}: {counted(len(rows), 'image')} ({gigabytes:.1f} GB) are decoded for every pass")
        if loaded.skipped:
            warn(
                f"{len(loaded.skipped)} of {counted(len(rows), 'image')} of split {rows.split} skipped; first: "
                f"{loaded.skipped[0]}"
            )
        return loaded

    def workload(
        self,
        model: DenseModel,
        train: StageImages,
        validation: StageImages,
        settings: PruningSettings,
        final: StageImages | None = None,
    ) -> Workload:
        """The workload of a stage."""
        plan = self.plan
        return Workload(model, train, validation, plan.preprocessing, settings, plan.config.precision, final)

    def trial(self, times: int = 1) -> Request:
        """What so many trials at once ask of the cluster."""
        search = self.plan.config.search
        return Request("a trial (--search.cpus, --search.gpus)", search.cpus, self._gpus(search.gpus), times)

    def workers(self) -> Request:
        """What stage 2's processes ask of the cluster, at the least.

        Raises:
            UserError: they would share too small a batch, or too few images for one.
        """
        config = self.plan.config
        replay, gpus = config.replay, self._gpus(config.replay.gpus)
        most = int(cluster_gpus() / gpus) if gpus else min(2, int(cluster_cpus()))
        count = replay.workers or max(1, most)
        if config.batch_size < 2 * count:
            raise UserError(
                f"--batch-size {config.batch_size} gives {counted(count, 'worker')} fewer than 2 images each"
            )
        self.plan.check_epochs(count)
        return Request("stage 2 (--replay.workers, --replay.cpus, --replay.gpus)", replay.cpus or 1.0, gpus, count)

    def check_resources(self) -> None:
        """Whether both stages can be served, now or once an autoscaler has added nodes.

        Raises:
            UserError: what cannot.
        """
        check_possible(self.trial())
        check_possible(self.workers())

    def trial_gpus(self) -> float:
        """GPUs of a trial, once there is room for one.

        Raises:
            UserError: the cluster could never serve a trial.
            RunError: its autoscaler did not in time.
        """
        request = self.trial()
        provide(request, self.plan.config.wait_for_resources, say)
        return request.gpus

    def worker_resources(self) -> WorkerResources:
        """Stage 2's processes, once there is room for them; their CPUs are those of their nodes, shared out.

        Raises:
            UserError: the cluster could never serve them.
            RunError: its autoscaler did not in time.
        """
        request = self.workers()
        provide(request, self.plan.config.wait_for_resources, say)
        shares = (float(each) for each in range(_MOST_CPUS_A_WORKER, 1, -1))
        cpus = self.plan.config.replay.cpus or next(
            (share for share in shares if placements(share, request.gpus) >= request.times), 1.0
        )
        return WorkerResources(request.times, cpus, request.gpus)

    def _gpus(self, asked: float | None) -> float:
        """GPUs of a process: as asked for, else one where there are any.

        Raises:
            UserError: arithmetic that needs one, and there is none.
        """
        gpus = asked if asked is not None else 1.0 if has_gpus() else 0.0
        resolve(self.plan.config.precision, torch.device("cuda" if gpus else "cpu"))
        return gpus
