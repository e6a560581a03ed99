"""The Train run of stage 2."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray.exceptions
import ray.train
import ray.train.torch
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from ice_ray.address import StoragePath
from ice_ray.cluster.events import LOST, EventChannel
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.faults import last_line
from ice_ray.cluster.session import as_told
from ice_ray.cluster.storage import rays_own
from ice_ray.cluster.workload import Workload
from ice_ray.engine.snapshots import Snapshot
from ice_ray.errors import RunError, UserError, told
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.replay.checkpoint import KEPT, Checkpoints, ReplayProgress
from ice_ray.replay.config import ReplayConfig
from ice_ray.replay.worker import ReplayOrder, replay_worker
from ice_ray.wording import counted

EXPERIMENT = "replay"


@dataclass(frozen=True)
class WorkerResources:
    """How many processes, and what each of them owns."""

    workers: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        count = counted(self.workers, "worker")
        each = counted(self.cpus, "CPU") + (f" and {counted(self.gpus, 'GPU')}" if self.gpus else "")
        return f"{count} of {each}"


def run_replay(
    workload: Workload,
    hyperparameters: Hyperparameters,
    config: ReplayConfig,
    resources: WorkerResources,
    folder: StoragePath,
    receive: Callable[[str, Any], None],
) -> tuple[ReplayProgress, Snapshot]:
    """Run stage 2 below `folder`/replay; goes on from the last step of an interrupted run.

    Args:
        receive: told ("prepared" | "resumed" | "step", ReplayProgress) while it runs, ("images", where they live),
            ("losses", rank 0's of every SGD step) of each fine-tune, and ("died", why) of a worker.

    Raises:
        RunError: the workers failed more often than allowed, training diverged, or memory did not suffice.
        UserError: as a worker raised it; they are not started again.
    """
    events, fault_log, checkpoints = EventChannel(), FaultLog.of(folder), Checkpoints(folder / EXPERIMENT)
    order = ReplayOrder(workload, hyperparameters, resources.cpus, resources.gpus, events, checkpoints, fault_log)
    failures: list[str] = []
    before = frozenset(placement_group_table())

    def listen(kind: str, content: Any) -> None:
        if kind == "failed":
            failures.append(content)
        elif kind == LOST:
            fault_log.note("messenger restart")
        else:
            receive(kind, content)

    with events.listening(listen):
        for restarts_left in reversed(range(config.max_failures + 1)):
            for path in checkpoints.tidy():
                fault_log.note("damaged file", path.name)
            try:
                with as_told(), _own_interruption():
                    _trainer(order, config, resources, folder).fit()
                break
            except SystemExit as end:  # Train's own handler of Ctrl-C
                raise KeyboardInterrupt from end
            except (ray.train.ControllerError, ray.exceptions.RayActorError) as error:
                if not restarts_left:
                    raise RunError(f"stage 2 failed: {last_line(error)}") from error
                fault_log.note("controller restart", last_line(error))
                _free_places(before)
                receive("died", "the one that watches over the others")
            except ray.train.TrainingFailedError as error:
                raise RunError(f"stage 2 failed: {last_line(error)}") from error
    if failures:
        raise RunError(f"stage 2 failed: {failures[0]}")
    newest, _ = checkpoints.newest()
    if newest is None:
        raise RunError("stage 2 ended without a checkpoint")
    progress, snapshot, _ = ReplayProgress.load(newest)
    if not progress.finished:
        raise RunError(f"stage 2 ended after step {len(progress.state.records)}, before its last")
    return progress, snapshot


@contextmanager
def _own_interruption() -> Iterator[None]:
    """Behind the block Ctrl-C does what it did before: Train's handler of it stays, and has nothing left to abort."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _trainer(
    order: ReplayOrder, config: ReplayConfig, resources: WorkerResources, folder: StoragePath
) -> ray.train.torch.TorchTrainer:
    deaths: Any = [_Deaths(order.fault_log, order.events)]  # Ray's own type for them is that of the former Train
    return ray.train.torch.TorchTrainer(
        replay_worker,
        train_loop_config={"order": order},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus > 0 else {}),
        ),
        run_config=ray.train.RunConfig(
            name=EXPERIMENT,
            **rays_own(folder),
            failure_config=ray.train.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT),
            callbacks=deaths,
        ),
    )


class _Deaths(ray.train.UserCallback):
    """Counts, in the process that watches over the workers, how often they are started again; where one of them has
    raised what would come again, it ends the run.
    """

    def __init__(self, fault_log: FaultLog, events: EventChannel) -> None:
        self._fault_log, self._events = fault_log, events

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for fault in map(told, worker_exceptions.values()):
            if isinstance(fault, UserError):
                raise fault  # Train gives up where a callback raises
        ranks = ", ".join(f"rank {rank}" for rank in sorted(worker_exceptions))
        self._fault_log.note("worker restart", ranks)
        self._events.send("died", ranks)


def _free_places(others: Collection[str]) -> None:
    """Give back what a controller that died had reserved for its workers. Ray's own cleaner learns of such a death from
    the dashboard, which may be off, or slow: until then there is no place for new workers.

    Args:
        others: placement groups that were there before.
    """
    own = ray.get_runtime_context().get_job_id()
    for name, place in placement_group_table().items():
        # Such a name ends with that of the job.
        if name.endswith(own) and name not in others and place["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(name)))
