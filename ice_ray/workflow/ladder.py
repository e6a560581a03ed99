"""Stage 2 of a run, of a ladder rung by rung: each is a replay of its own that goes on from the one above."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ice_ray.engine.snapshots import Snapshot
from ice_ray.errors import RunError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.ladder import ladder_png, ladder_table
from ice_ray.observe.terminal import say, show, shown_path
from ice_ray.replay.checkpoint import Checkpoints, ReplayProgress
from ice_ray.wording import counted
from ice_ray.workflow.context import JobContext
from ice_ray.workflow.exporting import export_missing
from ice_ray.workflow.replay_stage import replay_stage
from ice_ray.workflow.run_folder import RunFolder


def stage_2(context: JobContext, hyperparameters: Hyperparameters, report_on: Callable[[RunFolder], None]) -> None:
    """Prune with all the data, report and export. The last rung's results are the run's own, those above lie in
    rungs/TARGET, each whole as soon as it is done; one that is done stays when the run goes on.
    """
    *others, last = context.plan.rungs()
    above: tuple[Snapshot, float] | None = None
    walked = list[tuple[str, RunFolder]]()
    for plan in (*others, last):
        name = str(plan.config.target).replace(" ", ",")
        folder = context.folder if plan is last else context.folder.rung(name)
        own = dataclasses.replace(context, plan=plan, folder=folder, times=dict(context.times))
        if not folder.is_finished:
            if others:
                say(f"rung {len(walked) + 1} of {len(others) + 1}: --target {plan.config.target}")
            folder.path.make_folder()
            replay_stage(own, hyperparameters, above)
            report_on(folder)
        export_missing(own)
        walked.append((name, folder))
        if plan is not last:
            above = _came_to(folder)
    if others:
        _show_ladder(context.folder, walked)


def _came_to(folder: RunFolder) -> tuple[Snapshot, float]:
    """A finished rung's network, and its accuracy in percent on the validation images."""
    newest, _ = Checkpoints(folder.replay).newest()
    if newest is None:
        raise RunError(f"'{folder.replay}' holds no checkpoint that can be read: the rungs below go on from it")
    _, snapshot, _ = ReplayProgress.load(newest)
    return snapshot, float(folder.outcome()["pruned"]["validation_accuracy"])


def _show_ladder(run: RunFolder, walked: list[tuple[str, RunFolder]]) -> None:
    """All rungs side by side: a table on the terminal, and the figure."""
    outcomes = [(name, folder.outcome()) for name, folder in walked]
    found = [(name, outcome["dense"], outcome["pruned"]) for name, outcome in outcomes]
    title = f"{run.path.name}: a ladder of {counted(len(walked), 'rung')}"
    run.ladder.write_now(ladder_png(found, title))
    show(ladder_table(found, title))
    say(f"the ladder in {shown_path(run.ladder)}, its upper rungs in {shown_path(run.path / 'rungs')}")
