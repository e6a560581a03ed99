"""What each process of stage 2 does: the same pipeline, on an executor whose actions are collective."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from pyarrow.fs import LocalFileSystem

from ice_ray.cluster.events import EventChannel
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.cluster.workload import Workload, own_device
from ice_ray.distributed import ProcessGroup
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import DivergedError
from ice_ray.guard import blaming
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.replay.checkpoint import Checkpoints, ReplayProgress


@dataclass(frozen=True)
class ReplayOrder:
    """What stage 2 is asked to do.

    Attributes:
        checkpoints: of this replay, an interrupted part of it included.
    """

    workload: Workload
    hyperparameters: Hyperparameters
    cpus: float
    gpus: float
    events: EventChannel
    checkpoints: Checkpoints
    fault_log: FaultLog


def replay_worker(config: dict[str, Any]) -> None:
    """Run the whole replay in step with the other ranks; goes on from the last checkpoint, if there is one."""
    order: ReplayOrder = config["order"]
    try:
        with blaming(order.workload.own_code):
            _replay(order)
    except DivergedError as fault:
        # It would come again. All ranks have agreed on it, so all end here, and the driver says why.
        order.events.send("failed", str(fault))


def _replay(order: ReplayOrder) -> None:
    started = time.perf_counter()
    executor = order.workload.executor(_device(order), ProcessGroup())
    pipeline = order.workload.pipeline(order.hyperparameters)
    warm_up = executor.warm_up(pipeline.trains)
    executor.fine_tuner.on_losses = lambda losses: _tell(order, "losses", losses.tolist())
    progress = _resumed(order, executor)
    if progress is None:
        setup = time.perf_counter() - started - warm_up
        preparation = pipeline.prepare(executor, pipeline.freezes)
        state = pipeline.begin(executor)
        if order.workload.above is not None:
            above, accuracy = ray.get(order.workload.above)
            executor.store.put(above)
            state = pipeline.begin_below(executor, above.id, accuracy)
        progress = ReplayProgress(state, preparation, setup_seconds=setup, warm_up_seconds=warm_up)
        _tell(order, "prepared", progress)
    else:
        _tell(order, "resumed", progress)
    _tell(order, "images", executor.placement)
    while not pipeline.is_done(executor, progress.state):
        state = pipeline.advance(executor, progress.state, progress.preparation)
        progress = _report(order, executor, dataclasses.replace(progress, state=state))
        _tell(order, "step", progress)
    if not progress.finished:
        state, cost = pipeline.finish(executor, progress.state, progress.preparation)
        retrained = state.snapshot != progress.state.snapshot
        final = cost.wall_seconds
        progress = dataclasses.replace(progress, state=state, final_seconds=final, finished=True, retrained=retrained)
        _report(order, executor, progress)


def _device(order: ReplayOrder) -> torch.device:
    """Train lets the workers of a node see all its GPUs and says which is whose."""
    own = ray.train.torch.get_device() if order.gpus > 0 else None
    return own_device(order.cpus, order.gpus, own)


def _report(order: ReplayOrder, executor: TorchExecutor, progress: ReplayProgress) -> ReplayProgress:
    """Report a step to Ray Train; rank 0 alone saves, all ranks hold the same bits."""
    metrics = {"step": len(progress.state.records), "finished": progress.finished}
    if ray.train.get_context().get_world_rank() != 0:
        if progress.state.kept:
            executor.commit(progress.state.snapshot)
            executor.store.keep_only(progress.state.kept)
        ray.train.report(metrics)
        return progress
    # Beside the place where it is to stay, so that it is renamed and not copied: a copy could be left half-way.
    unfinished = order.checkpoints.begin(len(progress.state.records))
    saved = progress.save(unfinished, executor)
    checkpoint = ray.train.Checkpoint.from_directory(unfinished)
    ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_fn=partial(_finish, order.checkpoints))
    order.fault_log.note_retries()
    return saved


def _finish(checkpoints: Checkpoints, checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    path, file_system = checkpoints.finish(Path(checkpoint.path), name).arrow
    return ray.train.Checkpoint(path, file_system or LocalFileSystem())


def _resumed(order: ReplayOrder, executor: TorchExecutor) -> ReplayProgress | None:
    """Where the last checkpoint that can be read stands. One rank chooses, for all must go on from the same."""
    chosen: str | None = None
    if ray.train.get_context().get_world_rank() == 0:
        newest, damaged = order.checkpoints.newest()
        chosen = newest.name if newest is not None else None
        for path in damaged:
            order.fault_log.note("damaged file", path.name)
    chosen = ray.train.collective.broadcast_from_rank_zero(chosen)
    if chosen is None:
        return None
    progress, snapshot, kept = ReplayProgress.load(order.checkpoints.named(chosen))
    for each in (snapshot, *kept):
        executor.store.put(each)
    return progress


def _tell(order: ReplayOrder, kind: str, progress: ReplayProgress | str | list[float]) -> None:
    if ray.train.get_context().get_world_rank() == 0:
        order.events.send(kind, progress)
