"""Lines on the terminal: one per event while a job runs, a table at its end."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ice_ray.address import StoragePath
from ice_ray.cluster.fault_log import FaultLog
from ice_ray.errors import in_one_line
from ice_ray.objectives import Candidate
from ice_ray.observe.output import run_log
from ice_ray.observe.tables import AS_IT_IS, LOG_WIDTH, as_text, outcome_table
from ice_ray.observe.words import duration, time_rows
from ice_ray.pipelines.records import FINAL_RETRAINING, Preparation, StepRecord
from ice_ray.wording import counted

_IS_TERMINAL = sys.stdout is not None and sys.stdout.isatty()
# A width of its own where there is no terminal: a table in a log must not be cut at 80 columns.
console = Console(width=None if _IS_TERMINAL else LOG_WIDTH, **AS_IT_IS)


def say(line: str) -> None:
    """One line: in a log as it is, on a terminal that is too narrow broken between words."""
    run_log.add(_printable(line))
    console.print(_fitted(line))


def warn(line: str) -> None:
    """One line that matters."""
    run_log.add(_printable(f"warning: {line}"))
    console.print(_fitted(f"warning: {line}"), style="yellow")


def complain(line: str) -> None:
    """The one line that says why a job ends, on standard error."""
    run_log.add(line)
    print(line, file=sys.stderr)


def show(table: Table) -> None:
    """A table."""
    run_log.add(as_text(table))
    console.print(table)


def shown_path(path: StoragePath) -> str:
    """As one would type it: from the working directory where it lies below that."""
    return path.shown()


def _printable(line: str) -> str:
    return line if line.isprintable() else " " * (len(line) - len(line.lstrip())) + in_one_line(line)


def _fitted(line: str) -> str:
    line = _printable(line)
    if not console.is_terminal or len(line) <= console.width:
        return line
    indent = len(line) - len(line.lstrip()) + 4
    # What somebody may want to copy, a path or an option, stays whole.
    return textwrap.fill(
        line, console.width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )


def say_faults(fault_log: FaultLog) -> None:
    """What the run has gone on after, if anything."""
    if fault_log.counts():
        say(f"survived: {fault_log}")


def describe_step(record: StepRecord, steps: int, images: int) -> str:
    """A step of stage 2 in one line; "about" says that fewer than all validation images were looked at."""
    retraining = record.layers == FINAL_RETRAINING
    where = FINAL_RETRAINING if retraining else f"step {record.step}/{steps} {record.layers}"
    about = "about " if 0 < record.images_measured < images else ""
    after_removal = (
        "pruned" if record.accuracy_after_pruning is None else f"{about}{record.accuracy_after_pruning:.2f}%"
    )
    what = f"  {where}: {after_removal}"
    if record.fine_tuned:
        rate, took = record.learning_rate_max, duration(record.fine_tuning_seconds)
        how = counted(record.epochs, "epoch") if retraining else "fine-tuned"
        accuracy = f"{record.accuracy:.2f}% ({how} at {rate:.2g}, {took})"
        what = f"  {where}: {accuracy}" if retraining else f"{what} -> {accuracy}"
    if not record.accepted:
        what += ", rolled back"
    return what if retraining else f"{what}; {record.unpruned_share:.1%} of the parameters left"


def describe_preparation(preparation: Preparation) -> str:
    """Original accuracy and probe in one line."""
    line = f"  dense: {preparation.original_accuracy:.2f}% on the validation images"
    if preparation.ranking:
        line += f"; freezing probe {preparation.probe_seconds:.1f} s, least change in {preparation.ranking[0]}"
    return line


def describe_front(front: Sequence[Candidate]) -> str:
    """The non-dominated trials in one line."""
    return "; ".join(f"trial {c.index} drop {c.drop:.2f} points in {c.pruning_seconds:.1f} s" for c in front)


def show_assessment(dense: dict[str, Any], pruned: dict[str, Any]) -> None:
    """Dense against pruned, as the assessment gives them."""
    show(outcome_table(dense, pruned, "dense against pruned"))


def show_times(times: dict[str, float]) -> None:
    """Where the time went, part by part."""
    table = Table(title="where the time went", title_justify="left")
    table.add_column("part")
    table.add_column("time", justify="right")
    for row in time_rows(times):
        table.add_row(f"  {row.part}" if row.inside else row.part, duration(row.seconds))
    show(table)
