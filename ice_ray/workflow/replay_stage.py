"""Stage 2, from the winner to the pruned model and its figures."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import ray

from ice_ray.artifact import read_description, save_pruned
from ice_ray.cluster.storage import seen_by_all
from ice_ray.data.batches import check_epoch
from ice_ray.engine.snapshots import Snapshot
from ice_ray.environment import environment
from ice_ray.errors import UserError
from ice_ray.files import damage_named, write_json
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.live import ReplayView, shown_live
from ice_ray.observe.model_card import write_card
from ice_ray.observe.outcome import latency_runtime
from ice_ray.observe.step_log import StepLog
from ice_ray.observe.tensorboard import StepWriter
from ice_ray.observe.terminal import (
    describe_preparation,
    describe_step,
    say,
    say_faults,
    show_assessment,
    show_times,
    shown_path,
    warn,
)
from ice_ray.observe.trackers import tracked
from ice_ray.observe.trackers.runs import TrackedReplay
from ice_ray.pipelines.harm import harms_of
from ice_ray.replay.assess import Known, assess
from ice_ray.replay.checkpoint import ReplayProgress
from ice_ray.replay.run import run_replay
from ice_ray.trials.reports import step_reports
from ice_ray.wording import counted
from ice_ray.workflow.context import JobContext
from ice_ray.workflow.reporting import compared
from ice_ray.workflow.search_stage import dense_model


def replay_stage(
    context: JobContext, hyperparameters: Hyperparameters, above: tuple[Snapshot, float] | None = None
) -> dict[str, Any]:
    """Run stage 2, write pruned_model/ with its card, and summary.json, show both; returns the summary.

    Args:
        above: of a ladder's rung, what it goes on from, and its accuracy in percent.
    """
    plan, folder = context.plan, context.folder
    _describe_or_compare(context, hyperparameters)
    resources, length = context.worker_resources(), plan.length_with(hyperparameters)
    with context.timed("stage 2: reading images"):
        train, validation = (context.load(rows) for rows in plan.replay_rows())
        test = context.load(plan.roles.test)
        rows = plan.final_rows()
        final = context.load(rows) if rows is not None else None
        for images in (train, final or train):  # some may have been skipped
            check_epoch(images.count, resources.workers)
    workload = context.workload(dense_model(context), train, validation, plan.replay_settings, final)
    if above is not None:
        workload = dataclasses.replace(workload, above=ray.put(above))
    say(
        f"stage 2: {counted(length, 'pruning step')}, {train.count} training and "
        f"{counted(validation.count, 'validation image')}, {resources}"
    )
    per_epoch = math.ceil(train.count / plan.replay_settings.batch_size)
    run = folder.search.path.name
    name = "replay" if folder.search == folder else f"replay of {folder.path.name}"
    with tracked(plan.config.log_to, run, folder.path) as trackers:
        told = [TrackedReplay(tracker, name, hyperparameters) for tracker in trackers]
        retraining = hyperparameters.final_epochs or plan.config.options.final_training.epochs
        events = StepWriter(folder.tensorboard / "replay", folder.path.name, compared(plan), hyperparameters)
        logs: list[StepLog] = [events, *told]
        watcher = _Watcher(length, retraining, logs, per_epoch, validation.count)
        with (
            context.timed("stage 2: replay, start of workers included", watched=True),
            seen_by_all(folder.path),
            shown_live(watcher.view.render),
        ):
            progress, snapshot = run_replay(
                workload, hyperparameters, plan.config.replay, resources, folder.path, watcher.receive
            )
        with context.timed("assessment"):
            pruned = None if progress.retrained else progress.state.accuracy
            known = Known(progress.preparation.original_accuracy, pruned)
            assessment = assess(workload, test, snapshot, known, resources.cpus, resources.gpus)
        after, final = assessment["pruned"]["validation_accuracy"], plan.config.options.final_training
        for harm in harms_of(progress.state.records, type(hyperparameters), final, after, validation.count):
            warn(harm.for_jobs)
        for log in logs:
            log.end(len(progress.state.records) + progress.retrained, assessment)
    context.claim.check()
    times = context.times | _replay_times(progress)
    context.fault_log.note_retries()
    facts = {
        "metrics": assessment,
        "class_names": list(plan.dataset.class_names),
        "preprocessing": plan.preprocessing.as_dict(),
        "hyperparameters": hyperparameters.plain(),
        "config": plan.config.as_dict(),
        "commands": context.commands,
        **environment(),
    }
    left = {layer: snapshot.kept[layer] for layer in assessment["pruned"]["widths"]}
    own = plan.spec, plan.image_shape, left, snapshot.tensors
    save_pruned(folder.pruned_model, *own, facts, plan.frozen, plan.layout)
    summary = {
        **assessment,
        "hyperparameters": hyperparameters.plain(),
        "replay_pruning_seconds": progress.state.pruning_seconds("wall", 1.0),
        "original_accuracy": progress.preparation.original_accuracy,
        "steps": [record.as_dict() for record in progress.state.records],
        "seconds": times,
        "resources": dataclasses.asdict(resources),
        "fault_log": context.fault_log.counts(),
        "found": plan.reached.words if plan.reached is not None else None,
        "config": plan.config.as_dict(),
        "commands": context.commands,
        **environment(),
    }
    write_card(folder.pruned_model, folder.path.name, summary, read_description(folder.pruned_model), hyperparameters)
    write_json(folder.summary, summary)
    show_assessment(assessment["dense"], assessment["pruned"])
    show_times(times)
    say_faults(context.fault_log)
    say(f"latency: {latency_runtime(assessment)}; pruned model in {shown_path(folder.pruned_model)}")
    return summary


def _describe_or_compare(context: JobContext, hyperparameters: Hyperparameters) -> None:
    """Write down what decides the replay's result; where one was begun here, it must be the same.

    Raises:
        UserError: an option differs.
    """
    path = context.folder.replay_description
    deciding = {f"--{option}": value for option, value in context.plan.config.deciding().items()}
    now = deciding | {f"--{name}": value for name, value in hyperparameters.plain().items()}
    if not path.is_file():
        write_json(path, now)
        return
    with damage_named(path):
        before: dict[str, Any] = dict(json.loads(path.read_text()))
    changed = [option for option in now if now[option] != before.get(option)]
    if changed:
        shown = ", ".join(f"{option} was {before.get(option)} and is {now[option]}" for option in changed)
        raise UserError(f"cannot go on with the replay in '{context.folder.path}' as another one: {shown}")


def _replay_times(progress: ReplayProgress) -> dict[str, float]:
    """Stage 2's own parts, inside its wall time; the first five are PT of eq. 2."""
    records = progress.state.records
    return {
        "stage 2, PT: scoring": sum(record.scoring_seconds for record in records),
        "stage 2, PT: removal": sum(record.removal_seconds for record in records),
        "stage 2, PT: repair": sum(record.repair_seconds for record in records),
        "stage 2, PT: decision measurements": sum(record.measuring_seconds for record in records),
        "stage 2, PT: fine-tuning": sum(record.fine_tuning_seconds for record in records),
        "stage 2, apart: set-up": progress.setup_seconds,
        "stage 2, apart: warm-up": progress.warm_up_seconds,
        "stage 2, apart: original accuracy": progress.preparation.accuracy_seconds,
        "stage 2, apart: freezing probe": progress.preparation.probe_seconds,
        "stage 2, apart: checkpoints": progress.checkpoint_seconds,
        "stage 2, apart: final epochs": progress.final_seconds,
    }


class _Watcher:
    """Turns stage 2's events into lines and logs, on the driver.

    Args:
        logs: told of every step.
        per_epoch: SGD steps of an epoch.
        images: that decide.
    """

    def __init__(self, steps: int, retraining: float, logs: Sequence[StepLog], per_epoch: int, images: int) -> None:
        self._steps, self._logs, self._images = steps, logs, images
        self._per_epoch, self._trained = per_epoch, 0
        self.view = ReplayView(steps, retraining)

    def receive(self, kind: str, progress: ReplayProgress | str | list[float]) -> None:
        """One event of the workers."""
        if kind == "died":
            say(f"  a worker died ({progress}); all go on from the last step")
        elif isinstance(progress, str):
            say(f"  training images {progress}")
        elif isinstance(progress, list):
            for log in self._logs:
                log.losses(progress, self._trained)
            self._trained += len(progress)
        elif kind == "prepared":
            say(describe_preparation(progress.preparation))
            self.view.start(0, time.monotonic())
        elif kind == "resumed":
            say(f"  going on after step {min(len(progress.state.records), self._steps)}/{self._steps}")
            self.view.start(len(progress.state.records), time.monotonic())
            self._trained = round(self._per_epoch * sum(record.epochs for record in progress.state.records))
            for log in self._logs:
                log.catch_up(_reports(progress))
        elif kind == "step":
            say(describe_step(progress.state.records[-1], self._steps, self._images))
            for log in self._logs:
                log.step(_reports(progress)[-1])
            self.view.took(len(progress.state.records), progress.state.accuracy, time.monotonic())


def _reports(progress: ReplayProgress) -> list[dict[str, Any]]:
    """Of every step, on the wall's clock."""
    return step_reports(progress.state.records, False, "wall", 1.0)
