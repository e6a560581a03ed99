"""How much less was done than the trials asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ice_ray.cache.actions import ActionRecord
from ice_ray.engine.actions import FineTune
from ice_ray.pipelines.records import StepRecord


@dataclass(frozen=True)
class SharedWork:
    """What all trials of a search asked for, and what was carried out.

    Attributes:
        asked_fine_tunes, fine_tunes: of their steps, and those that were run.
        asked_seconds: what the trials would have taken alone, wall, added up.
        seconds: what was spent on what was carried out, added up over devices.
    """

    asked_fine_tunes: int
    fine_tunes: int
    asked_seconds: float
    seconds: float

    @classmethod
    def of(cls, trials: Iterable[Sequence[StepRecord]], action_records: Sequence[ActionRecord]) -> SharedWork:
        """From every trial's records and everything that was carried out for them."""
        records = [record for trial in trials for record in trial]
        return cls(
            asked_fine_tunes=sum(record.fine_tuned for record in records),
            fine_tunes=sum(isinstance(action_record.action, FineTune) for action_record in action_records),
            asked_seconds=sum(record.cost.wall_seconds for record in records),
            seconds=sum(action_record.seconds for action_record in action_records),
        )

    def __str__(self) -> str:
        return (
            f"{self.asked_fine_tunes} fine-tunes asked for, {self.fine_tunes} carried out; "
            f"{self.asked_seconds:.0f} s of pruning in {self.seconds:.0f} s of work"
        )
