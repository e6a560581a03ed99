"""What skipping fine-tunes saved, estimated from the records of the run itself."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord


@dataclass(frozen=True)
class Savings:
    """Against a fine-tune after every step, all else equal; seconds are wall.

    Attributes:
        steps, fine_tunes: pruning steps, and those of them that a fine-tune followed.
        mean_seconds: of one of those fine-tunes.
        spent_seconds: what the steps took (PT of eq. 2).
        saved_seconds: what fine-tunes after the other steps would have taken.
    """

    steps: int
    fine_tunes: int
    mean_seconds: float
    spent_seconds: float
    saved_seconds: float

    @property
    def skipped(self) -> int:
        """Steps that went without."""
        return self.steps - self.fine_tunes

    @property
    def always_seconds(self) -> float:
        """What the steps would have taken with a fine-tune after each."""
        return self.spent_seconds + self.saved_seconds

    @property
    def saved_share(self) -> float:
        """Of `always_seconds`."""
        return self.saved_seconds / self.always_seconds if self.always_seconds else 0.0


def savings_of(runs: Iterable[Sequence[StepRecord]]) -> Savings | None:
    """Of one run of a pipeline or several together; None where no fine-tune was skipped, or none tells how long one
    takes.

    A skipped fine-tune counts as long as the mean of those of its own run, of a run without any as that of all.
    """
    pruning = [[record for record in run if record.layers != FINAL_RETRAINING] for run in runs]
    tuned = [[record.fine_tuning_seconds for record in run if record.fine_tuned] for run in pruning]
    everything = [seconds for own in tuned for seconds in own]
    if not everything:
        return None
    mean = statistics.mean(everything)
    skipped = [len(run) - len(own) for run, own in zip(pruning, tuned, strict=True)]
    if not any(skipped):
        return None
    saved = sum(count * statistics.mean(own or [mean]) for count, own in zip(skipped, tuned, strict=True))
    return Savings(
        steps=sum(map(len, pruning)),
        fine_tunes=len(everything),
        mean_seconds=mean,
        spent_seconds=sum(record.cost.wall_seconds for run in pruning for record in run),
        saved_seconds=saved,
    )
