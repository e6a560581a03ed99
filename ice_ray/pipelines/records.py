"""What a pipeline remembers: a record per pruning step, and the small state it is resumed from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ice_ray.engine.actions import SnapshotId
from ice_ray.engine.cost import Clock, Cost

FINAL_RETRAINING = "retraining"
"""What a record names in place of layers where it is of the retraining after the last step."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One pruning step, or the retraining after the last one.

    Accuracies in percent on the validation images, drop in percentage points, times in seconds. What is not given was
    not done.

    Attributes:
        step: counts from 1.
        layers: what was pruned.
        filters_removed: over the step's layers.
        unpruned_share: alpha of eq. 1 after the removal.
        accuracy_before, accuracy_after_pruning, accuracy: before the step, after removal, after fine-tuning (equal
            to the one after removal where none was needed). That after removal is None in pipelines that do not
            measure there.
        drop: original accuracy minus `accuracy` (eq. 3).
        images_measured: validation images that `accuracy_after_pruning` is over: fewer than there are where the
            threshold's question was answered before all had been looked at, or where nothing asks and a part of them
            shows what the step has done.
        fine_tuned: whether the drop after removal reached the threshold.
        epochs: of that fine-tune, a part of one where a look inside it ended it; 0 without one.
        learning_rate_max: the greatest rate where the step fine-tuned (eq. 1's bound), else None.
        scoring_seconds ... fine_tuning_seconds: wall time of the parts; together the step's share of PT.
        flops: operations of the step, for the work clock.
        accepted: whether the step stands; one that a pipeline rolls back costs all the same.
    """

    step: int
    layers: str
    filters_removed: int = 0
    unpruned_share: float
    accuracy_before: float
    accuracy_after_pruning: float | None = None
    accuracy: float
    drop: float
    images_measured: int = 0
    fine_tuned: bool = False
    epochs: float = 0
    learning_rate_max: float | None = None
    scoring_seconds: float = 0.0
    removal_seconds: float = 0.0
    repair_seconds: float = 0.0
    measuring_seconds: float = 0.0
    fine_tuning_seconds: float = 0.0
    flops: float = 0.0
    accepted: bool = True

    @property
    def cost(self) -> Cost:
        """The step's share of PT, on both clocks."""
        deciding = self.scoring_seconds + self.removal_seconds + self.repair_seconds + self.measuring_seconds
        return Cost(deciding + self.fine_tuning_seconds, self.flops)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return dataclasses.asdict(self)


def fine_tunes(records: Iterable[StepRecord]) -> int:
    """Of the pruning steps; a retraining at the end is none of them."""
    return sum(record.fine_tuned for record in records if record.layers != FINAL_RETRAINING)


@dataclass(frozen=True)
class Preparation:
    """What every run with the same data and model starts from, and so is computed once for all of them.

    Attributes:
        original_accuracy: of the dense network on the validation images, percent.
        weight_changes: the freezing probe's result per freezable layer, shallow to deep; empty where no run freezes.
        ranking: freezable layers, least change first.
        accuracy_seconds, probe_seconds: what the two took, wall; not part of PT.
        allocation: what finding the layers' widths took; the first step's share of PT has it.
    """

    original_accuracy: float
    weight_changes: dict[str, float]
    ranking: tuple[str, ...]
    accuracy_seconds: float
    probe_seconds: float
    allocation: Cost = Cost()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preparation:
        """What `dataclasses.asdict` and JSON made of one."""
        ranking, allocation = tuple(values["ranking"]), Cost(**values.get("allocation", {}))
        return cls(**{**values, "ranking": ranking, "allocation": allocation})


@dataclass(frozen=True)
class PipelineState:
    """Where a pipeline stands: enough, with the snapshot it names, to go on as if never interrupted.

    Attributes:
        retrained: whether the retraining after the last step is done; its record is the last.
        memory: what else a pipeline must remember, as JSON has it.
        kept: other snapshots that it may go back to.
        began_at: accuracy, percent, of what it began with, where that is not the dense network but the rung above.
    """

    snapshot: SnapshotId
    records: tuple[StepRecord, ...] = ()
    retrained: bool = False
    memory: Any = None
    kept: tuple[SnapshotId, ...] = ()
    began_at: float | None = None

    @property
    def accuracy(self) -> float:
        """After the last step, percent."""
        return self.records[-1].accuracy

    def pruning_seconds(self, clock: Clock, flops_per_second: float) -> float:
        """PT of eq. 2 so far, on one clock: of all steps, those that were rolled back too."""
        return sum((record.cost for record in self.records), Cost()).seconds(clock, flops_per_second)

    def to_json(self) -> str:
        """All of it as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PipelineState:
        """What `to_json` wrote."""
        content = json.loads(text)
        records = tuple(StepRecord(**record) for record in content["records"])
        return cls(**{**content, "records": records, "kept": tuple(content.get("kept", ()))})
