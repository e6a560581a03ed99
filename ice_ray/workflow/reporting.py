"""report.html of a run, at the end of both stages and by `ice-ray report`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ice_ray.address import StoragePath, storage_path
from ice_ray.config.jobs import ReportConfig
from ice_ray.config.run import flat_options
from ice_ray.errors import UserError
from ice_ray.files import write_text
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.invocation import job_words
from ice_ray.observe.model_card import CARD
from ice_ray.observe.report.page import comparison_page, run_page
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.tensorboard_pages import write_pages
from ice_ray.observe.terminal import say, shown_path, warn
from ice_ray.observe.trials_table import read_trials
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.workflow.plan import Plan
from ice_ray.workflow.run_folder import RunFolder


def report_job(config: ReportConfig) -> None:
    """Write every run's report anew, and of several runs a comparison."""
    places = [storage_path(run).resolve() for run in config.runs]
    for each in places:
        each.check("run")
    folders = [RunFolder(each) for each in places]
    records = [read_run(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        write_text(folder.report, run_page(record))
        say(shown_path(folder.report))
    if len(records) > 1:
        target = storage_path(config.target) if config.target else folders[0].path.parent / "comparison.html"
        write_text(target, comparison_page(records))
        say(shown_path(target))


def report_on(folder: RunFolder) -> None:
    """Write the report of a run that has just ended a stage. A page for people must not cost the run: what goes wrong
    is said, and `ice-ray report` writes it later.
    """
    try:
        record = read_run(folder)
        write_text(folder.report, run_page(record))
        card = folder.pruned_model / CARD
        write_pages(folder.tensorboard / "run", record, card.read_text() if card.is_file() else None)
        say(f"  report in {shown_path(folder.report)}")
    except Exception as error:
        again = f"{shlex.join([*job_words('report'), shown_path(folder.path)])} tries again"
        warn(f"no report was written ({type(error).__name__}: {error}); {again}")


def compared(plan: Plan) -> dict[str, str | float]:
    """What a run was told, as far as runs are compared by it in TensorBoard."""
    told = plan.config.deciding() | ({"ratio": plan.found.ratio} if plan.found else {})
    names = ("model", "pipeline", "ratio", "criterion", "repair")
    return {name: told[name] for name in names if told.get(name) is not None}


def read_run(folder: RunFolder) -> RunRecord:
    """A run, or a replay below one, from its files.

    Raises:
        UserError: there is no finished search in the folder, or a file is damaged.
    """
    search = folder.search
    best = _json(search.best)
    summary = _json(folder.summary) if folder.summary.is_file() else None
    told = best if summary is None else summary
    try:
        return RunRecord(
            kind=_kind(best["config"]["pipeline"]),
            name=folder.path.name if search == folder else f"{search.path.name}, {folder.path.name}",
            folder=shown_path(folder.path),
            best=best,
            trials=read_trials(search.trials),
            summary=summary,
            commands=tuple(told["commands"]),
            options=flat_options(told["config"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"'{folder.path}' is no run of this version ({type(error).__name__}: {error})") from error


def _kind(pipeline: str) -> type[Hyperparameters] | None:
    """What is searched for a pipeline; of one of the user's own that is not importable here, nothing is known."""
    try:
        return pipeline_named(pipeline).Hyperparameters
    except UserError:
        return None


def _json(path: StoragePath) -> Mapping[str, Any]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"'{path}': {error.strerror}; a search writes it") from error
    except ValueError as error:
        raise UserError(f"'{path}' is damaged ({error})") from error
    return content
