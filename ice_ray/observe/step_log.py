"""What is logged of a run of a pipeline, under the same names wherever it is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ice_ray.hyperparameters import Hyperparameters, spelled
from ice_ray.pipelines.records import FINAL_RETRAINING

_OF_A_FINE_TUNE = ("accuracy_after_pruning", "learning_rate_max")
LOSS = "fine_tuning/loss"
STEP_TAGS = {
    "accuracy": "accuracy/validation",
    "accuracy_after_pruning": "accuracy/before_fine_tuning",
    "learning_rate_max": "fine_tuning/learning_rate_max",
    "unpruned_share": "size/parameters_left",
    "cost_so_far": "cost/cumulative",
    "pruning_seconds": "time/cumulative_pruning",
}
"""In the order in which they are written; the last is known of every step, so a step that has it is whole."""
OUTCOME_TAGS = {
    "validation_accuracy": "accuracy/validation",
    "test_accuracy": "accuracy/test",
    "parameters": "size/parameters",
    "multiply_adds": "size/multiply_adds",
    "latency_1_ms": "latency/pytorch_eager_batch_1",
    "latency_64_ms": "latency/pytorch_eager_batch_64",
}
"""Of a network as it was assessed."""
DESCRIPTIONS = {
    "accuracy/validation": "Top-1 accuracy on the validation images after each pruning step, percent; step 0 is the "
    "dense model. Where no decision hangs on it, a part of the images may do.",
    "accuracy/before_fine_tuning": "Top-1 accuracy on the validation images after removal and repair, before the "
    "fine-tune, percent; of the steps that were fine-tuned.",
    "accuracy/test": "Top-1 accuracy on the test images, percent: dense (step 0) and pruned.",
    "fine_tuning/learning_rate_max": "Greatest learning rate of the step's fine-tune; of the steps that had one.",
    LOSS: "Training loss of every SGD step, over all fine-tunes and the retraining, one after the other.",
    "size/parameters_left": "Parameters left, percent of the dense model's (alpha of eq. 1).",
    "size/parameters": "Parameters: dense (step 0) and pruned.",
    "size/multiply_adds": "Multiply-adds of one image: dense (step 0) and pruned.",
    "latency/pytorch_eager_batch_1": "Median latency of one image in PyTorch eager, milliseconds: dense (step 0) and "
    "pruned.",
    "latency/pytorch_eager_batch_64": "Median latency of a batch of 64 images in PyTorch eager, milliseconds: dense "
    "(step 0) and pruned.",
    "cost/cumulative": "Cost of eq. 2, from the steps so far: (PT + drop) / max(PT, drop).",
    "time/cumulative_pruning": "Pruning time (PT of eq. 2) of the steps so far, seconds.",
}
"""By tag, with the unit."""


class StepLog(Protocol):
    """One run of a pipeline, as it is logged."""

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step: the fields of its record, with `pruning_seconds` and `cost_so_far` where they are known."""

    def catch_up(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Steps that an earlier part of the run has taken; some may have been told."""

    def losses(self, values: Sequence[float], first: int) -> None:
        """The loss of every SGD step of a fine-tune, numbered through the run from `first` on."""

    def end(self, last: int, assessment: Mapping[str, Any]) -> None:
        """The run is over: its last step, and both networks as they were assessed."""


def step_figures(values: Mapping[str, Any]) -> dict[str, float]:
    """What is known of a step, by tag. Of a retraining, the step before it and its hyperparameters say how it began.

    >>> step_figures({"accuracy": 90, "accuracy_after_pruning": 90, "fine_tuned": False, "unpruned_share": 0.5})
    {'accuracy/validation': 90.0, 'size/parameters_left': 50.0}
    """
    fine_tuned = values.get("fine_tuned") and values.get("layers") != FINAL_RETRAINING
    names = [name for name in STEP_TAGS if fine_tuned or name not in _OF_A_FINE_TUNE]
    known = {name: float(values[name]) for name in names if values.get(name) is not None}
    if "unpruned_share" in known:
        known["unpruned_share"] *= 100
    return {STEP_TAGS[name]: value for name, value in known.items() if math.isfinite(value)}


def dense_figures(first: Mapping[str, Any]) -> dict[str, float]:
    """Of the dense model, which is step 0, as the record of step 1 tells them: a drop is against its accuracy."""
    return step_figures({"accuracy": first["accuracy"] + first["drop"], "unpruned_share": 1.0, "pruning_seconds": 0.0})


def outcome_figures(network: Mapping[str, Any]) -> dict[str, float]:
    """Of a network as it was assessed, by tag."""
    return {tag: float(network[name]) for name, tag in OUTCOME_TAGS.items() if name in network}


def parameters(point: Hyperparameters) -> dict[str, float | str]:
    """The hyperparameters that are in effect, by name. One that may be never is always a word: TensorBoard filters a
    column of numbers and words by the words, and finds no number then.
    """
    words = point.may_be_never()
    return {name: spelled(value) if name in words else value for name, value in point.in_effect.items()}
