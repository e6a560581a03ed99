"""From records to pages: what the templates are given."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ice_ray.hyperparameters import NEVER, spelled
from ice_ray.observe.copyable import exporting, is_python, loading, pasted, replaying, uploading
from ice_ray.observe.outcome import (
    RUNTIME,
    OutcomeRow,
    images_measured,
    latency_conditions,
    latency_runtime,
    outcome_rows,
    what_was_done,
)
from ice_ray.observe.report.figures import drop_after_removal, timeline, trade_off
from ice_ray.observe.report.importance import FEWEST_TRIALS, importances
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.report.savings import Savings, savings_of
from ice_ray.observe.trials_table import TrialRecord
from ice_ray.observe.words import duration, time_rows
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord, fine_tunes
from ice_ray.replay.run import WorkerResources
from ice_ray.wording import counted

_LEAST_SHARE = 0.01
"""Of what trials differ in: a hyperparameter that accounts for less has made no difference."""


@dataclass(frozen=True)
class HyperparameterRow:
    """One of them: the value of the trial that is shown, empty where it decided nothing there, and the share of what
    the trials differed in that it accounts for.
    """

    name: str
    symbol: str
    value: str
    for_drop: float | None
    for_time: float | None


@dataclass(frozen=True)
class WidthRow:
    """Filters of one layer, and the share that is left."""

    layer: str
    dense: int
    pruned: int

    @property
    def share(self) -> float:
        """Left, in percent."""
        return 100 * self.pruned / self.dense


def run_page(run: RunRecord) -> str:
    """The report of one run, as HTML that needs nothing else."""
    return _pages().get_template("report.html.jinja").render(title=f"{run.name}: report", **_facts(run))


def comparison_page(runs: Sequence[RunRecord]) -> str:
    """Several runs beside each other."""
    told = [
        {
            "run": run,
            "rows": {row.key: row for row in _outcome(run)},
            "savings": _savings(run, [run.steps]),
            "fine_tunes": fine_tunes(run.steps),
            "runtime": "" if run.summary is None else latency_runtime(run.summary),
        }
        for run in runs
    ]
    labels = {row.key: row.label for run in runs for row in _outcome(run)}
    differing = [
        (name, [run.options.get(name) for run in runs])
        for name in sorted({name for run in runs for name in run.options})
        if name != "name" and any(run.options.get(name) != runs[0].options.get(name) for run in runs)
    ]
    page = _pages().get_template("comparison.html.jinja")
    return page.render(
        title=f"{len(runs)} runs compared",
        runs=told,
        labels=labels,
        differing=differing,
        scatter=trade_off(runs),
        fine_tuned=any(own["fine_tunes"] for own in told),
    )


def _facts(run: RunRecord) -> dict[str, Any]:
    assessment, steps, figure = run.summary, run.steps, timeline(run)
    pruning = [step for step in steps if step.layers != FINAL_RETRAINING]
    model = f"{run.folder}/pruned_model"
    hyperparameters, not_listed = _hyperparameters(run)
    return {
        "run": run,
        "loading": loading(model, run.config["model"], run.commands),
        "exporting": exporting(model, run.config["model"], run.commands),
        "uploading": uploading(model),
        "replaying": replaying(run.folder, run.commands),
        "done": what_was_done(
            run.config, steps, run.never, replayed=assessment is not None, found=run.told.get("found")
        ),
        "harms": run.harms,
        "outcome": _outcome(run),
        "images": images_measured(assessment) if assessment is not None else None,
        "conditions": latency_conditions(assessment) if assessment is not None else None,
        "runtime": RUNTIME,
        "scatter": trade_off([run]),
        "timeline": figure,
        "kinds": {each.kind for each in figure.marks} | {each.kind for each in figure.lines},
        "retraining": FINAL_RETRAINING,
        "tuned": any(step.fine_tuned or not step.accepted for step in pruning),
        "removed": any(step.filters_removed for step in pruning),
        "measured_parts": sorted({step.images_measured for step in steps if run.is_part(step)}),
        "hyperparameters": hyperparameters,
        "not_listed": not_listed,
        "varied": _varied(run),
        "trial_values": {trial.index: _values(run, trial) for trial in run.trials},
        "is_important": any(row.for_drop is not None or row.for_time is not None for row in hyperparameters),
        "finished": len(run.candidates),
        "fewest_trials": FEWEST_TRIALS,
        "widths": _widths(run),
        "drops": [drop_after_removal(run, step) for step in steps] if run.threshold is not None else [],
        "replay_savings": _savings(run, [steps]) if assessment is not None else None,
        "search_savings": _savings(run, [trial.records for trial in run.trials if not trial.failure]),
        "times": time_rows(run.told["seconds"]),
        "environment": _environment(run),
    }


def _savings(run: RunRecord, records: Sequence[Sequence[StepRecord]]) -> Savings | None:
    """Only where a threshold decides has a step been spared its fine-tune."""
    return None if run.threshold is None else savings_of(records)


def _outcome(run: RunRecord) -> list[OutcomeRow]:
    return [] if run.summary is None else outcome_rows(run.summary["dense"], run.summary["pruned"])


def _values(run: RunRecord, trial: TrialRecord) -> dict[str, str]:
    return {name: spelled(value) for name, value in run.deciding(trial).items()}


def _varied(run: RunRecord) -> list[str]:
    """The hyperparameters in which trials differ where they decide something."""
    values = [_values(run, trial) for trial in run.trials]
    return [name for name in run.winner.hyperparameters if len({own[name] for own in values if name in own}) > 1]


def _hyperparameters(run: RunRecord) -> tuple[list[HyperparameterRow], str]:
    """Those in which trials differ and that made a difference; of a single trial all that had an effect. And in a
    sentence, which others there are and why they are not among them.
    """
    trials = {trial.index: trial for trial in run.trials}
    usable = [candidate for candidate in run.candidates if candidate.is_usable]
    own = [run.deciding(trials[candidate.index]) for candidate in usable]
    logarithmic = frozenset[str]() if run.kind is None else run.kind.logarithmic()
    for_drop = importances(own, [candidate.drop for candidate in usable], logarithmic)
    for_time = importances(own, [candidate.pruning_seconds for candidate in usable], logarithmic)
    found = [run.in_effect(trial) for trial in run.trials]
    names = [
        name
        for name in run.shown.hyperparameters
        if any(values.get(name, NEVER) != NEVER for values in found) or name in _varied(run)
    ]
    shown, everywhere = _values(run, run.shown), [_values(run, trial) for trial in run.trials]
    unused = [name for name in names if not any(name in values for values in everywhere)]
    differing = names if len(run.trials) == 1 else _varied(run)
    alike = [name for name in names if name not in (*unused, *differing)]
    slight = [
        name
        for name in differing
        if for_drop and for_time and max(for_drop.get(name, 0.0), for_time.get(name, 0.0)) < _LEAST_SHARE
    ]
    rows = [
        HyperparameterRow(name, run.symbol(name), shown.get(name, ""), for_drop.get(name), for_time.get(name))
        for name in differing
        if name not in (*unused, *slight)
    ]
    same = {name: next(values[name] for values in everywhere if name in values) for name in alike}
    reasons = [
        (", ".join(f"{_spaced(name)} {value}" for name, value in same.items()), "the same in every trial that used it"),
        (", ".join(map(_spaced, unused)), "used by fine-tunes alone, and no step was followed by one"),
        (", ".join(map(_spaced, slight)), f"less than {_LEAST_SHARE:.0%} of either"),
    ]
    return rows, "; ".join(f"{which} ({reason})" for which, reason in reasons if which)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _widths(run: RunRecord) -> list[WidthRow]:
    if run.summary is None:
        return []
    dense, pruned = (run.summary[which].get("widths", {}) for which in ("dense", "pruned"))
    return [WidthRow(layer, width, pruned[layer]) for layer, width in dense.items()]


def _environment(run: RunRecord) -> dict[str, str]:
    told = run.told
    facts = {"device of the trials": "; ".join(run.places) if len(run.places) > 1 else run.best["device"]}
    if run.summary is not None:
        facts["device of the assessment"] = f"{run.summary['device']}, {run.summary['precision']}"
        facts["stage 2"] = str(WorkerResources(**run.summary["resources"]))
    return facts | {"python": told["python"], "machine": told["machine"], **told["packages"]}


@cache
def _pages() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("ice_ray.observe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"duration": duration, "lines": in_lines, "breakable": breakable, "counted": counted}
    return pages


def breakable(name: str) -> Markup:
    """A layer's name, which a narrow column may break behind its dots."""
    return escape(name).replace(".", Markup(".<wbr>")).replace(",", ", ")


def in_lines(command: str) -> str:
    """A command for a shell with an option to a line; Python so that it can be run.

    >>> print(in_lines("python a.py --name 'a --b' --list 1 2"))
    python a.py \\
        --name 'a --b' \\
        --list 1 2
    """
    if is_python(command):
        return pasted(command)
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)
