"""The report's two plots as plain geometry, which the template draws: every trial's time and loss, and the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ice_ray.hyperparameters import spelled
from ice_ray.objectives import Candidate, pareto_front
from ice_ray.observe.report.axes import (
    Axis,
    accuracy_bounds,
    bounds_of,
    drop_bounds,
    horizontal,
    time_bounds,
    vertical,
)
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.words import duration
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.wording import counted


@dataclass(frozen=True)
class Mark:
    """A point to hover.

    Attributes:
        kind: how it looks, a class of the style sheet.
        series: which run's it is, from 0.
        tip: what is said of it, a fact a line.
    """

    x: float
    y: float
    kind: str
    tip: str
    series: int = 0


@dataclass(frozen=True)
class Line:
    """A path through places of the view box."""

    points: tuple[tuple[float, float], ...]
    kind: str
    series: int = 0


@dataclass(frozen=True)
class Figure:
    """Axes, lines below, marks above."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]


def trade_off(runs: Sequence[RunRecord]) -> Figure | None:
    """Every finished trial by its pruning seconds and drop, winners and fronts marked; None where there are no two."""
    everyone = [candidate for run in runs for candidate in run.candidates if candidate.is_usable]
    if len(everyone) < 2:
        return None
    clocks = " and ".join(sorted({run.best["clock"] for run in runs}))
    seconds, drops = zip(*((each.pruning_seconds, each.drop) for each in everyone), strict=True)
    x = horizontal(f"pruning time (s, {clocks} clock)", time_bounds(seconds))
    y = vertical("accuracy drop (points)", drop_bounds(drops))
    lines, marks = [], []
    for series, run in enumerate(runs):
        front = pareto_front(run.candidates)
        lines.append(Line(tuple(_at(x, y, each) for each in front), "front", series))
        on_front = {candidate.index for candidate in front}
        usable = [candidate for candidate in run.candidates if candidate.is_usable]
        # The winner last, so that no other covers it.
        for candidate in sorted(usable, key=lambda each: (each.index == run.winner.index, each.index)):
            won = candidate.index == run.winner.index
            kind = "winner" if won else "on-front" if candidate.index in on_front else "other"
            tip = _trial_tip(run, candidate, kind, len(runs) > 1)
            marks.append(Mark(*_at(x, y, candidate), kind, tip, series))
    return Figure(x, y, tuple(lines), tuple(marks))


def timeline(run: RunRecord) -> Figure:
    """Accuracy on the validation images over the pruning steps, before and after every fine-tune."""
    original, steps, limit = run.original_accuracy, run.steps, run.limit
    measured = (value for step in steps for value in (step.accuracy_after_pruning, step.accuracy))
    values = [original, *(value for value in measured if value is not None)]
    x = horizontal("pruning step (0: the dense model)", bounds_of([0, len(steps)]), whole=True)
    y = vertical("validation accuracy (%)", accuracy_bounds(values if limit is None else [*values, limit]))
    lines = [Line(((x.start, y.place(limit)), (x.end, y.place(limit))), "threshold")] if limit is not None else []
    marks = [Mark(x.place(0), y.place(original), "dense", f"dense model\n{original:.2f}%")]
    for number, step in enumerate(steps, start=1):
        # What a step starts from is not where the last one ended, if that was rolled back.
        start, end = (x.place(number - 1), y.place(step.accuracy_before)), (x.place(number), y.place(step.accuracy))
        retraining, removed = step.layers == FINAL_RETRAINING, step.accuracy_after_pruning
        fallen = None if removed is None or retraining else (end[0], y.place(removed))
        lines.append(Line((start, fallen or end), "recovered" if retraining else "pruned"))
        tip = "\n".join([_step_name(step), *step_facts(run, step)])
        if step.fine_tuned and fallen is not None:
            lines.append(Line((fallen, end), "recovered"))
            marks.append(Mark(*fallen, "before", tip))
        kind = "rolled-back" if not step.accepted else "fine-tuned" if step.fine_tuned else "skipped"
        marks.append(Mark(*end, kind, tip))
    return Figure(x, y, tuple(lines), tuple(marks))


def step_facts(run: RunRecord, step: StepRecord) -> list[str]:
    """What a step did and why, a sentence each."""
    facts = [] if step.layers == FINAL_RETRAINING else [_removed(step)]
    drop = drop_after_removal(run, step)
    if drop is not None and step.layers != FINAL_RETRAINING:
        part = f" (of {counted(step.images_measured, 'image')})" if run.is_part(step) else ""
        facts.append(f"{step.accuracy_after_pruning:.2f}%{part} afterwards, {drop:.2f} points below the dense model")
    if step.fine_tuned:
        rate = "" if step.learning_rate_max is None else f" at a rate of at most {step.learning_rate_max:.3g}"
        facts.append(f"{why(run, step)}{rate}, {duration(step.fine_tuning_seconds)}, to {step.accuracy:.2f}%")
    elif not run.never:
        facts.append(why(run, step))
    return facts if step.accepted else [*facts, "rolled back"]


def drop_after_removal(run: RunRecord, step: StepRecord) -> float | None:
    """Points below the dense model before any fine-tune; None where the pipeline did not ask."""
    return None if step.accuracy_after_pruning is None else run.original_accuracy - step.accuracy_after_pruning


def why(run: RunRecord, step: StepRecord) -> str:
    """Why a step was, or was not, followed by a fine-tune."""
    did = "fine-tuned" if step.fine_tuned else "not fine-tuned"
    if step.layers == FINAL_RETRAINING:
        return "retrained after the last step"
    drop = drop_after_removal(run, step)
    # The threshold need not tell: an inexact answer (--decision-error), or a pipeline with rules of its own.
    if run.threshold is None or drop is None or step.fine_tuned != (drop >= run.threshold):
        return f"{did}, as the pipeline decided"
    compared = "reached" if step.fine_tuned else "is below"
    return f"{did}: the drop of {drop:.2f} {compared} the threshold of {counted(run.threshold, 'point')}"


def _removed(step: StepRecord) -> str:
    removed = f"{step.filters_removed} filters removed, " if step.filters_removed else ""
    return f"{removed}{step.unpruned_share:.1%} of the parameters left"


def _step_name(step: StepRecord) -> str:
    return FINAL_RETRAINING if step.layers == FINAL_RETRAINING else f"step {step.step}: {step.layers}"


def _at(x: Axis, y: Axis, candidate: Candidate) -> tuple[float, float]:
    return x.place(candidate.pruning_seconds), y.place(candidate.drop)


def _trial_tip(run: RunRecord, candidate: Candidate, kind: str, named: bool) -> str:
    trial = next(trial for trial in run.trials if trial.index == candidate.index)
    role = {"winner": ", the winner", "on-front": ", on the front", "other": ""}[kind]
    head = f"{run.name}, trial {candidate.index}{role}" if named else f"trial {candidate.index}{role}"
    figures = f"{candidate.drop:.2f} points lost in {candidate.pruning_seconds:.2f} s, cost {candidate.cost:.4f}"
    point = ", ".join(f"{run.symbol(name)} {spelled(value)}" for name, value in run.in_effect(trial).items())
    tuned = trial.fine_tunes
    trained = f"{counted(tuned, 'fine-tune')} in {counted(len(trial.records), 'step')}" if tuned else ""
    return "\n".join(fact for fact in (head, figures, trained, point) if fact)
