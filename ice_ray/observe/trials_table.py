"""trials.parquet: every step of every trial, a row each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError
from ice_ray.files import damage_named
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.records import StepRecord, fine_tunes
from ice_ray.trials.run import TrialResult

_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
}
_STEP_FIELDS = [pa.field(field.name, _TYPES[str(field.type)]) for field in dataclasses.fields(StepRecord)]

_STEP_NAMES = tuple(field.name for field in _STEP_FIELDS)
_OF_A_TRIAL = ("trial", "failure", "node", "device", "inherited")


def column_of(name: str) -> str:
    """Where a hyperparameter is: under its own name, unless a step has a figure of that name (IMP's `epochs`)."""
    return f"hyperparameter_{name}" if name in (*_STEP_NAMES, *_OF_A_TRIAL) else name


def schema_of(kind: type[Hyperparameters]) -> pa.Schema:
    """The table's, of a search for hyperparameters of one kind."""
    return pa.schema(
        [
            pa.field("trial", pa.int64()),
            pa.field("failure", pa.string()),
            pa.field("node", pa.string()),
            pa.field("device", pa.string()),
            *(pa.field(column_of(name), pa.float64()) for name in kind.names()),
            *_STEP_FIELDS,
            pa.field("inherited", pa.bool_()),
        ]
    )


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the table has it.

    Attributes:
        failure: why it ended before its last step; empty where it did not.
        records: of the steps that it took.
        inherited: how many of them another trial had taken before.
        place: what it ran on, and where.
    """

    index: int
    hyperparameters: dict[str, float]
    failure: str
    records: tuple[StepRecord, ...]
    inherited: int
    place: str

    @property
    def fine_tunes(self) -> int:
        """After its pruning steps."""
        return fine_tunes(self.records)


def read_trials(path: Path | StoragePath) -> list[TrialRecord]:
    """All trials, in order, as `write_trials` wrote them.

    Raises:
        UserError: no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"'{path}': no such file; a search writes it")
    try:
        with storage_path(path).on_disk() as file:
            rows = pq.read_table(file).to_pylist()
        by_trial = {index: list(group) for index, group in itertools.groupby(rows, key=lambda row: row["trial"])}
        return [
            TrialRecord(
                index,
                {
                    name.removeprefix("hyperparameter_"): value
                    for name, value in own[0].items()
                    if name not in (*_OF_A_TRIAL, *_STEP_NAMES)
                },
                own[0]["failure"],
                tuple(
                    StepRecord(**{name: row[name] for name in _STEP_NAMES if name in row})
                    for row in own
                    if row["step"] is not None
                ),
                sum(bool(row["inherited"]) for row in own),
                f"{own[0].get('device') or 'unknown'} on {own[0]['node'] or 'no node'}",
            )
            for index, own in sorted(by_trial.items())
        ]
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"'{path}' is no trials.parquet of a search ({type(error).__name__}: {first})") from error


def read_finished(path: Path | StoragePath, trial: int, kind: type[Hyperparameters]) -> Hyperparameters:
    """The hyperparameters of a trial that took all its steps.

    Raises:
        UserError: no such file, or no such trial.
    """
    if not path.is_file():
        raise UserError(f"'{path}': no such file; a search writes it")
    with damage_named(path), storage_path(path).on_disk() as file:
        rows = pq.read_table(file, columns=["trial", "failure", *map(column_of, kind.names())]).to_pylist()
        finished = {int(row["trial"]): row for row in rows if not row["failure"]}
    if trial not in finished:
        failure = next((f": {row['failure']}" for row in rows if row["trial"] == trial), "")
        listed = ", ".join(str(index) for index in sorted(finished))
        raise UserError(f"--trial {trial} is no finished trial of the search{failure} (finished: {listed})")
    return kind(**{name: finished[trial][column_of(name)] for name in kind.names()})


def write_trials(path: Path | StoragePath, results: Sequence[TrialResult]) -> None:
    """Write the records; a trial that failed before its first step ended has one row with empty step columns."""
    rows: list[dict[str, Any]] = []
    for result in results:
        own = {
            "trial": result.index,
            "failure": result.failure,
            "node": result.node,
            "device": result.device,
            **{column_of(name): value for name, value in result.hyperparameters.as_dict().items()},
        }
        steps = zip(result.records, result.inherited, strict=True)
        rows += [own | record.as_dict() | {"inherited": inherited} for record, inherited in steps] or [own]
    table = pa.Table.from_pylist(rows, schema=schema_of(type(results[0].hyperparameters)))
    storage_path(path).write_whole(lambda temporary: pq.write_table(table, temporary))
