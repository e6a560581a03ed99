"""A run as Python sees it: its trials, the winner, the pruned model."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from torch import nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.api.arguments import pipeline_config, validated
from ice_ray.api.result import Result
from ice_ray.cluster.faults import ended_by
from ice_ray.config.jobs import ReplayJobConfig, replay_defaults, searched_pipeline
from ice_ray.config.option_words import in_arguments
from ice_ray.errors import RunError, UserError, in_one_line
from ice_ray.hyperparameters import Hyperparameters, spelled
from ice_ray.objectives import pareto_front
from ice_ray.observe.output import run_log
from ice_ray.observe.report.run_record import RunRecord
from ice_ray.observe.tables import as_html, as_text, outcome_table
from ice_ray.pipelines.records import FINAL_RETRAINING
from ice_ray.replay.config import ReplayConfig
from ice_ray.torch_defaults import usual_defaults
from ice_ray.wording import counted
from ice_ray.workflow.given import NAMED, Given
from ice_ray.workflow.jobs import replay_job
from ice_ray.workflow.reporting import read_run
from ice_ray.workflow.run_folder import RunFolder
from ice_ray.workflow.search_stage import Winner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame, Series

_MOST_ROWS = 12
"""Trials that a table shows; of more those of the front."""


def load_run(path: str | Path | StoragePath, builder: Callable[..., nn.Module] | None = None) -> Study:
    """A run whose search has ended, from the folder that a job or `ice_ray.search` has written.

    Args:
        path: the run's folder (`runs/NAME`) or its address (`s3://bucket/runs/NAME`); or that of a replay of one trial
            (`runs/NAME/replays/trial-003`), whose `result` is then that trial's.
        builder: for a model of your own, the function or class that builds its dense form, as for `load_pruned`.

    Raises:
        UserError: there is no run, its search has not ended, or a file of it is damaged.
    """
    own = storage_path(path).resolve()
    own.check("path")
    folder = RunFolder(own)
    if not folder.search.best.is_file():
        if not folder.is_there:
            raise UserError(f"path '{path}': there is no such run")
        if not folder.description.is_file():
            raise UserError(f"path '{path}' is not the folder of a run: it has no {folder.description.name}")
        raise UserError(
            f"path '{path}': the search of this run has not ended: go on with it, resume=True (--resume on a command "
            "line)"
        )
    study = Study(own, builder)
    _ = study.record  # what is damaged is said now
    return study


@contextmanager
def told_in_arguments() -> Iterator[None]:
    """The log of the run in the block takes what is said there; what goes wrong is raised in one line that speaks of
    arguments, not of options.
    """
    run_log.end()  # what this process has said before is no part of the run
    try:
        yield
    except Exception as error:
        known = ended_by(error)
        if known is None:
            raise
        said, code = in_one_line(in_arguments(known[0])), known[1]
        run_log.add(getattr(error, "details", "") or "".join(traceback.format_exception(error)))
        if isinstance(error, (UserError, RunError)) and said == str(error):
            raise
        raise (UserError if code == 2 else RunError)(said) from error
    finally:
        run_log.end()


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """A run: what its search found, and what became of the winner. `ice_ray.search` and `load_run` give it.

    It shows itself as a table, on the terminal (`print(study)`) and in a notebook. Times are seconds on the search's
    clock, drops points of accuracy on the validation images of the search.

    Attributes:
        path: the run's folder or address.
        builder: builds the dense form of a model of your own.
        given: what `ice_ray.search` was given as objects, for `replay`.
    """

    path: StoragePath
    builder: Callable[..., nn.Module] | None = field(default=None)
    given: Given = NAMED

    @property
    def name(self) -> str:
        """The run's."""
        return self.record.name

    @cached_property
    def record(self) -> RunRecord:
        """All that the run's files say, as the report is made of it."""
        return read_run(self._folder)

    @cached_property
    def trials(self) -> DataFrame:
        """A row per trial, by its number: the hyperparameters (infinity stands for never), `drop` in points,
        `pruning_seconds`, `cost` by eq. 2, `unpruned_share` of the parameters, `steps` and how many of them were
        fine-tuned (`fine_tunes`) or taken over from another trial (`inherited`), whether it is on the `front` of time
        and drop and whether it is the `winner`, why it failed (`failure`, else empty), and the `place` that it ran at.
        The figures of a trial that failed are missing.
        """
        import pandas as pd  # only where it is asked for: it takes a while to load

        run = self.record
        figures = {candidate.index: candidate for candidate in run.candidates}
        front = {candidate.index for candidate in pareto_front(run.candidates)}
        rows: list[dict[str, Any]] = []
        for trial in run.trials:
            own = figures.get(trial.index)
            steps = [step for step in trial.records if step.layers != FINAL_RETRAINING]
            rows.append(
                {
                    "trial": trial.index,
                    **trial.hyperparameters,
                    "drop": None if own is None else own.drop,
                    "pruning_seconds": None if own is None else own.pruning_seconds,
                    "cost": None if own is None else own.cost,
                    "unpruned_share": None if own is None else own.unpruned_share,
                    "steps": len(steps),
                    "fine_tunes": trial.fine_tunes,
                    "inherited": trial.inherited,
                    "front": trial.index in front,
                    "winner": trial.index == run.winner.index,
                    "failure": trial.failure,
                    "place": trial.place,
                }
            )
        return pd.DataFrame(rows).set_index("trial")

    @cached_property
    def trial_steps(self) -> DataFrame:
        """A row per pruning step of every trial, by trial and step; columns as the attributes of `StepRecord`."""
        import pandas as pd

        rows = [{"trial": trial.index} | step.as_dict() for trial in self.record.trials for step in trial.records]
        return pd.DataFrame(rows).set_index(["trial", "step"])

    @property
    def front(self) -> DataFrame:
        """The rows of `trials` that no other trial beats in time without losing more accuracy, fastest first."""
        return self.trials[self.trials["front"]].sort_values("pruning_seconds")

    @property
    def winner(self) -> Series:
        """The row of `trials` that the search chose; its name is the trial's number."""
        return self.trials.loc[self.record.winner.index]

    @property
    def reason(self) -> str:
        """Why it was chosen, in words."""
        return str(self.record.best["reason"])

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The winner's, as `ice_ray.prune(..., hyperparameters=...)` takes them."""
        return Winner.read(self._folder.search).hyperparameters

    @property
    def is_pruned(self) -> bool:
        """Whether stage 2 has ended, and so there are a `result` and a `model`."""
        return self.record.summary is not None

    @cached_property
    def result(self) -> Result:
        """The pruned model of stage 2 and how it came about; of a ladder the last rung's, with those above in `rungs`.

        Raises:
            UserError: stage 2 has not ended; or the model is your own and no `builder` was given.
        """
        if self.record.summary is None:
            raise UserError(f"run '{self.name}' has no pruned model: its stage 2 has not ended")
        above: Result | None = None
        for rung in self._folder.rungs_above:
            above = Result.of_run(rung.pruned_model, rung.outcome(), self.builder, above)
        return Result.of_run(self._folder.pruned_model, self.record.summary, self.builder, above)

    @property
    def model(self) -> nn.Module:
        """The pruned model, in eval mode on the CPU.

        Raises:
            UserError: as for `result`.
        """
        return self.result.model

    @usual_defaults()
    def replay(
        self, trial: int | None = None, *, replay: ReplayConfig | None = None, resume: bool = False, **options: Any
    ) -> Study:
        """Run stage 2 alone, as `jobs/ice_replay.py` does: prune with a trial's hyperparameters on all the images.

        Args:
            trial: its number; the results go into `replays/trial-NNN` of the run's folder. [default: the winner, for
                a run of stage 1 alone]
            replay: all options of stage 2. [default: as the search was told]
            resume: go on with a replay that was interrupted.
            options: of the pipeline, where they are to be others than in the search (`ratio`, `repair`); and `target`,
                `name` (the results go into `replays/NAME`), `export`, `wait_for_resources`, `log_to`, `verbose`.

        Returns the study whose `result` is the replay's.

        Raises:
            UserError: no such trial, a replay that is there already, or the run was given objects and this study was
                loaded: `ice_ray.search(..., name=..., resume=True)` with the same objects gives one that can.
            RunError: it cannot go on; `resume=True` goes on with it.
        """
        with told_in_arguments():
            best = self._folder.search.best
            job = replay_defaults(str(best))
            values = {each.name: getattr(job, each.name) for each in dataclasses.fields(job)}
            common = values.keys() - {"config", "options", "replay", "trial", "resume"}
            values |= {"target": None} if "ratio" in options else {}
            values |= {name: value for name, value in options.items() if name in common}
            own = {name: value for name, value in options.items() if name not in common}
            pipeline = searched_pipeline(str(best)) or "ice"
            values |= {"trial": trial, "resume": resume, "replay": replay or job.replay}
            values |= {"options": pipeline_config(pipeline, job.options, own, sorted(common))}
            told = {"trial": trial, "resume": resume or None, "replay": replay} | options
            shown = ", ".join(f"{name}={value!r}" for name, value in told.items() if value is not None)
            given = dataclasses.replace(self.given, code=f"study.replay({shown})")
            kind: Any = ReplayJobConfig[type(job.options)]  # type: ignore[misc]
            folder = replay_job(validated(kind, values), given)
        return Study(folder.path, self.builder, self.given)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw every finished trial by its time and its drop, with the front and the winner.

        Args:
            axes: matplotlib's, to draw on. [default: those of a new figure]
        """
        import matplotlib.pyplot as plt

        own = plt.subplots()[1] if axes is None else axes
        done, front, winner = self.trials.dropna(subset=["drop"]), self.front, self.winner
        own.plot(front["pruning_seconds"], front["drop"], drawstyle="steps-post", color="grey", zorder=1, label="front")
        own.scatter(done["pruning_seconds"], done["drop"], zorder=2, label="trials")
        own.scatter(
            [winner["pruning_seconds"]], [winner["drop"]], marker="*", s=200, zorder=3, label=f"winner: {winner.name}"
        )
        own.set_xlabel(f"pruning time (s, {self.record.best['clock']} clock)")
        own.set_ylabel("accuracy drop (points)")
        own.set_title(self.name)
        own.legend()
        return own

    def __repr__(self) -> str:
        run = self.record
        outcome = "stage 2 has not ended"
        if run.summary is not None:
            before, after = (run.summary[of]["test_accuracy"] for of in ("dense", "pruned"))
            outcome = f"test accuracy {before:.2f}% to {after:.2f}%"
        return (
            f"Study({run.folder!r}: {len(run.candidates)} of {counted(len(run.trials), 'trial')} finished, winner "
            f"{run.winner.index}, {outcome})"
        )

    def __str__(self) -> str:
        return "\n".join(as_text(table).rstrip("\n") for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(as_html(table) for table in self._tables())

    def _tables(self) -> list[Table]:
        summary = self.record.summary
        tables = [self._trials_table()]
        return tables if summary is None else [*tables, outcome_table(summary["dense"], summary["pruned"], "stage 2")]

    def _trials_table(self) -> Table:
        run, trials = self.record, self.trials
        shown = trials if len(trials) <= _MOST_ROWS else trials[trials["front"] | trials["winner"]]
        left_out = "" if len(shown) == len(trials) else "; shown are those of the front"
        title = f"{self.name}: {len(run.candidates)} of {counted(len(trials), 'trial')} finished{left_out}"
        table = Table(title=f"{title}; winner: trial {self.winner.name}, {self.reason}", title_justify="left")
        names = [name for name in run.trials[0].hyperparameters if trials[name].nunique() > 1]
        for column in ("trial", *(run.symbol(name) for name in names), "drop (points)", "time (s)", "cost"):
            table.add_column(column, justify="right")
        table.add_column("")
        for index, row in shown.iterrows():
            values = [spelled(row[name]) for name in names]
            figures = [f"{row['drop']:.2f}", f"{row['pruning_seconds']:.1f}", f"{row['cost']:.4f}"]
            mark = "winner" if row["winner"] else "front" if row["front"] else row["failure"]
            table.add_row(str(index), *values, *(["-"] * 3 if row["failure"] else figures), mark)
        return table

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)
