"""The reports of a pipeline's steps, from its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ice_ray.engine.cost import Clock
from ice_ray.errors import OwnCodeError, StorageError, UserError
from ice_ray.objective import normalized_cost
from ice_ray.pipelines.records import PipelineState, StepRecord


def step_reports(
    records: Sequence[StepRecord],
    finished: bool,
    clock: Clock,
    flops_per_second: float,
    inherited: Sequence[bool] = (),
) -> list[dict[str, Any]]:
    """A report for every step: its record, PT and eq. 2 so far on a clock, and whether all of it was inherited, where
    that is known; the last one of a finished run also has eq. 2.
    """
    reports: list[dict[str, Any]] = []
    for count, record in enumerate(records, start=1):
        seconds = PipelineState("", tuple(records[:count])).pruning_seconds(clock, flops_per_second)
        cost = normalized_cost(seconds, record.drop)
        own = {**record.as_dict(), "pruning_seconds": seconds, "cost_so_far": cost, "done": False}
        reports.append(own | ({"inherited": inherited[count - 1]} if inherited else {}))
    if finished and reports:
        reports[-1] |= {"done": True, "cost": reports[-1]["cost_so_far"], "failure": ""}
    return reports


def refusal_report(fault: StorageError | UserError) -> dict[str, Any]:
    """The report of a trial that cannot go on, as no other trial could."""
    details = getattr(fault, "details", "")
    return {"done": True, "refused": str(fault), "is_input": isinstance(fault, UserError), "details": details}


def refusal_of(report: Mapping[str, Any]) -> StorageError | UserError:
    """The fault in such a report."""
    said = str(report["refused"])
    return OwnCodeError(said, str(report["details"])) if report["is_input"] else StorageError(said)
