"""trials.parquet: every step of every trial, a row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ice_ray.errors import UserError
from ice_ray.files import atomic_path, damage_named
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.records import StepRecord
from ice_ray.search.run import TrialResult

_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
}
_STEP_FIELDS = [pa.field(field.name, _TYPES[str(field.type)]) for field in dataclasses.fields(StepRecord)]


def schema_of(kind: type[Hyperparameters]) -> pa.Schema:
    """The table's, of a search for hyperparameters of one kind."""
    return pa.schema(
        [
            pa.field("trial", pa.int64()),
            pa.field("failure", pa.string()),
            pa.field("node", pa.string()),
            *(pa.field(name, pa.float64()) for name in kind.names()),
            *_STEP_FIELDS,
            pa.field("inherited", pa.bool_()),
        ]
    )


def read_finished(path: Path, trial: int, kind: type[Hyperparameters]) -> Hyperparameters:
    """The hyperparameters of a trial that took all its steps.

    Raises:
        UserError: no such file, or no such trial.
    """
    if not path.is_file():
        raise UserError(f"'{path}': no such file; a search writes it")
    with damage_named(path):
        rows = pq.read_table(path, columns=["trial", "failure", *kind.names()]).to_pylist()
        finished = {int(row["trial"]): row for row in rows if not row["failure"]}
    if trial not in finished:
        failure = next((f": {row['failure']}" for row in rows if row["trial"] == trial), "")
        listed = ", ".join(str(index) for index in sorted(finished))
        raise UserError(f"--trial {trial} is no finished trial of the search{failure} (finished: {listed})")
    return kind(**{name: finished[trial][name] for name in kind.names()})


def write_trials(path: Path, results: Sequence[TrialResult]) -> None:
    """Write the records; a trial that failed before its first step ended has one row with empty step columns."""
    rows: list[dict[str, Any]] = []
    for result in results:
        own = {
            "trial": result.index,
            "failure": result.failure,
            "node": result.node,
            **result.hyperparameters.as_dict(),
        }
        steps = zip(result.records, result.inherited, strict=True)
        rows += [own | record.as_dict() | {"inherited": inherited} for record, inherited in steps] or [own]
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(type(results[0].hyperparameters))), temporary)
