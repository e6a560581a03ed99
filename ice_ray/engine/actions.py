"""Actions: plain data that a pipeline emits and an executor carries out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from ice_ray.engine.cost import Cost
from ice_ray.engine.threshold import Threshold
from ice_ray.pruning.freezing import WeightChange
from ice_ray.repair.config import RepairKind
from ice_ray.training.schedules import Schedule
from ice_ray.training.schedules.retraining import Replayed, WarmCosine

Counting = Literal["parameters", "conv-weights", "non-zero-parameters", "multiply-adds"]
SnapshotId = str


@dataclass(frozen=True)
class Score:
    """Score the filters of a step's units. Value: {layer: scores}, (filters,) tensors.

    Attributes:
        step: its number; 0 for the units of all steps together.
        images: training images for criteria that look at data.
    """

    step: int
    criterion: str
    images: int = 1000


@dataclass(frozen=True)
class Prune:
    """Remove filters for real: per layer, indices as the layer is now. Leads to a new snapshot."""

    removed: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Mask:
    """Set the smallest weights of all convolutions and linear layers to zero. Leads to a new snapshot.

    Attributes:
        share: of those weights that is zero afterwards.
    """

    share: float


@dataclass(frozen=True)
class Reinitialise:
    """Draw all weights anew, as before any training. Leads to a new snapshot.

    Attributes:
        key: names the random choices within the run.
    """

    key: tuple[int | str, ...]


@dataclass(frozen=True)
class Repair:
    """Remove filters for real, and repair the network without labels. Leads to a new snapshot. Value: `Repaired`.

    Attributes:
        step: whose units lost filters.
        kind: `bn`, `least-squares` or `reconstruction`.
        removed: as in `Prune`.
        images: training images that are looked at.
        epochs: of a reconstruction.
        criterion: whose scores of the same network have chosen the filters: what they were charged with is no cost of
            this.
        together: after the last step, epochs of a reconstruction of all steps' layers together.
    """

    step: int
    kind: RepairKind
    removed: tuple[tuple[str, tuple[int, ...]], ...]
    images: int = 1000
    epochs: float = 0.0
    criterion: str | None = None
    together: float = 0.0


@dataclass(frozen=True)
class Measure:
    """Accuracy on the validation images. Value: `Measured`.

    Attributes:
        threshold: end as soon as it is certain whether the drop has reached it; without one all images are looked at.
        images: look at so many of them, the same every time; without it at all.
    """

    threshold: Threshold | None = None
    images: int | None = None


@dataclass(frozen=True)
class Measured:
    """An accuracy.

    Attributes:
        accuracy: percent of the images looked at; on the side of the threshold that all of them would give.
        images: how many that were, over all processes.
        reached: whether the drop has reached the threshold, if the measurement had one.
    """

    accuracy: float
    images: int
    reached: bool = False


@dataclass(frozen=True)
class UnprunedShare:
    """The share alpha of eq. 1. Value: within (0, 1].

    Attributes:
        counting: `parameters` (every parameter of the model) or `conv-weights` (as the authors' program: non-zero
            weights of the convolutions larger than 1x1, the first one left out); for other pipelines also
            `non-zero-parameters`, and `multiply-adds` of an image.
    """

    counting: Counting


@dataclass(frozen=True)
class LayerShares:
    """What each prunable layer holds of the network as it is. Value: {layer: share}, over all convolutions and
    prunable layers.

    Attributes:
        counting: of their weights, or of their multiply-adds.
    """

    counting: Literal["weights", "multiply-adds"]


@dataclass(frozen=True)
class WeightNorm:
    """Euclidean norm of the weights of all convolutions and linear layers together. Value: at least 0."""


@dataclass(frozen=True)
class EarlyStopping:
    """Measuring the drop inside a fine-tune, to end it (the paper's Fig. 1, case 4, in SGD steps instead of epochs).

    Attributes:
        every: SGD steps between two measurements.
        images: validation images measured, the same every time.
        margin: points by which the drop on them must be below the threshold to end the fine-tune.
    """

    every: int
    images: int
    margin: float


@dataclass(frozen=True)
class FineTune:
    """Fine-tune. Leads to a new snapshot. Value: `FineTuned`.

    Attributes:
        key: names the random choices within the run: ("step", 3), ("probe",), ("final",).
        learning_rate: the greatest; the schedule scales it.
        epochs: at most; a part of one will do.
        schedule: by name or as it is, over all epochs.
        frozen: layers held fixed.
        until: measure after every epoch, and train no more once the drop is below this threshold.
        early_stopping: look at it inside epochs, too.
        final: train on the images of the final epochs.
        cut: hold fixed, too, everything below the lowest freezable layer that is left to train, so that the backward
            pass ends there.
        taught: whether the unpruned network teaches, where the recipe has it.
        sparse: keep weights that are zero at zero.
    """

    key: tuple[int | str, ...]
    learning_rate: float
    epochs: float
    schedule: Schedule | Replayed | WarmCosine
    frozen: tuple[str, ...]
    until: Threshold | None = None
    early_stopping: EarlyStopping | None = None
    final: bool = False
    cut: bool = False
    taught: bool = True
    sparse: bool = False


@dataclass(frozen=True)
class FineTuned:
    """What came of a fine-tune.

    Attributes:
        epochs: how many it took; a part of one where a look inside it was enough.
        accuracy: after the last of them (percent, validation images); None where `until` did not ask for it.
    """

    epochs: float
    accuracy: float | None


@dataclass(frozen=True)
class CompareWeights:
    """Each freezable layer's weight change since an earlier, committed snapshot of the same shape.

    Value: {layer: change}, shallow to deep.
    """

    since: SnapshotId
    change: WeightChange


Action = (
    Score
    | Prune
    | Mask
    | Reinitialise
    | Repair
    | Measure
    | UnprunedShare
    | LayerShares
    | WeightNorm
    | FineTune
    | CompareWeights
)


@dataclass(frozen=True)
class Outcome:
    """What an action led to: the snapshot after it (the one before, for a measurement), its value, its cost."""

    snapshot: SnapshotId
    value: Any
    cost: Cost


def root_id(identity: dict[str, Any]) -> SnapshotId:
    """The id of a run's dense snapshot: everything that decides its bits (weights, data, recipe, seed, threads...)."""
    return _digest(identity)


def apart(root: SnapshotId, whose: str) -> SnapshotId:
    """Another name for the dense snapshot, so that a trial shares nothing with others."""
    return _digest([root, whose])


def next_id(snapshot: SnapshotId, action: Action) -> SnapshotId:
    """The id of the snapshot that `action` leads to: a snapshot is named by its whole history."""
    return _digest([snapshot, type(action).__name__, dataclasses.asdict(action)])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
