"""From records to pages: what the templates are given."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ice_ray.hyperparameters import Hyperparameters
from ice_ray.observe.outcome import OutcomeRow, images_measured, latency_conditions, outcome_rows
from ice_ray.observe.report.figures import drop_after_removal, timeline, trade_off
from ice_ray.observe.report.importance import FEWEST_TRIALS, importances
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.report.savings import Savings, savings_of
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.replay.run import WorkerResources


@dataclass(frozen=True)
class HyperparameterRow:
    """One of them: the winner's value, and the share of what the trials differed in that it accounts for."""

    name: str
    symbol: str
    value: float
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
        {"run": run, "rows": {row.key: row for row in _outcome(run)}, "savings": _savings(run, [run.steps])}
        for run in runs
    ]
    labels = {row.key: row.label for run in runs for row in _outcome(run)}
    options = [_flat(run.config) for run in runs]
    differing = [
        (name, [each.get(name) for each in options])
        for name in sorted({name for each in options for name in each})
        if name != "name" and any(each.get(name) != options[0].get(name) for each in options)
    ]
    page = _pages().get_template("comparison.html.jinja")
    return page.render(
        title=f"{len(runs)} runs compared", runs=told, labels=labels, differing=differing, scatter=trade_off(runs)
    )


def _facts(run: RunRecord) -> dict[str, Any]:
    assessment = run.summary
    return {
        "run": run,
        "outcome": _outcome(run),
        "images": images_measured(assessment) if assessment is not None else None,
        "conditions": latency_conditions(assessment) if assessment is not None else None,
        "scatter": trade_off([run]),
        "timeline": timeline(run),
        "retraining": FINAL_RETRAINING,
        "hyperparameters": _hyperparameters(run),
        "finished": len(run.candidates),
        "fewest_trials": FEWEST_TRIALS,
        "widths": _widths(run),
        "drops": [drop_after_removal(run, step) for step in run.steps],
        "replay_savings": _savings(run, [run.steps]) if assessment is not None else None,
        "search_savings": _savings(run, [trial.records for trial in run.trials if not trial.failure]),
        "environment": _environment(run),
    }


def _savings(run: RunRecord, records: Sequence[Sequence[StepRecord]]) -> Savings | None:
    """Only where a threshold decides has a step been spared its fine-tune."""
    return None if run.threshold is None else savings_of(records)


def _outcome(run: RunRecord) -> list[OutcomeRow]:
    return [] if run.summary is None else outcome_rows(run.summary["dense"], run.summary["pruned"])


def _hyperparameters(run: RunRecord) -> list[HyperparameterRow]:
    points = {trial.index: trial.hyperparameters for trial in run.trials}
    usable = [candidate for candidate in run.candidates if candidate.is_usable]
    own = [points[candidate.index] for candidate in usable]
    for_drop = importances(own, [candidate.drop for candidate in usable], run.logarithmic)
    unused = Hyperparameters.defaults()
    for_time = importances(own, [candidate.pruning_seconds for candidate in usable], run.logarithmic)
    return [
        HyperparameterRow(name, run.symbols.get(name, ""), value, for_drop.get(name), for_time.get(name))
        for name, value in run.shown.hyperparameters.items()
        if any(point.get(name) != unused.get(name) for point in points.values())
    ]


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


def _flat(options: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{prefix}{key.replace('_', '-')}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


@cache
def _pages() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("ice_ray.observe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"duration": duration, "lines": in_lines, "breakable": breakable}
    return pages


def breakable(name: str) -> Markup:
    """A layer's name, which a narrow column may break behind its dots."""
    return escape(name).replace(".", Markup(".<wbr>")).replace(",", ", ")


def in_lines(command: str) -> str:
    """A command for a shell with an option to a line.

    >>> print(in_lines("python a.py --name 'a --b' --list 1 2"))
    python a.py \\
        --name 'a --b' \\
        --list 1 2
    """
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(4.21), duration(75), duration(7265)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
