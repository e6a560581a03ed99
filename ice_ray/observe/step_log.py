"""What is logged of a run of a pipeline, under the same names wherever it is logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

STEP_TAGS = {
    "accuracy_after_pruning": "accuracy/after_pruning",
    "accuracy": "accuracy/after_fine_tuning",
    "drop": "accuracy/drop",
    "learning_rate_max": "fine_tuning/learning_rate_max",
    "fine_tuned": "fine_tuning/fine_tuned",
    "inherited": "pruning/inherited",
    "unpruned_share": "pruning/unpruned_share",
    "cost_so_far": "pruning/cost_so_far",
    "pruning_seconds": "pruning/seconds",
}
"""In the order in which they are written; the last is known of every step, so a step that has it is whole."""
_OF_ACCURACY = ("accuracy", "drop", "cost_so_far")
RESULT_TAGS = {"cost": "result/cost", "drop": "result/drop", "pruning_seconds": "result/pruning_seconds"}


class StepLog(Protocol):
    """One run of a pipeline, as it is logged."""

    def step(self, values: Mapping[str, Any]) -> None:
        """One pruning step: the fields of its record, with `pruning_seconds` and `cost_so_far` where they are known."""

    def catch_up(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Steps that an earlier part of the run has taken; some may have been told."""

    def losses(self, values: Sequence[float], first: int) -> None:
        """The loss of every SGD step of a fine-tune, numbered through the run from `first` on."""

    def end(self, hyperparameters: Mapping[str, float], values: Mapping[str, Any]) -> None:
        """The run's hyperparameters with its results; a failed run has no results."""


def figures(values: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, float]:
    """Those values that have a tag, by tag, where they are known. Of a step that was not measured, nothing that follows
    from its accuracy is.

    >>> figures({"drop": 1, "cost": None, "layers": "conv"}, RESULT_TAGS)
    {'result/drop': 1.0}
    """
    unknown = () if values.get("measured", True) else _OF_ACCURACY
    known = {name: tag for name, tag in tags.items() if name not in unknown and values.get(name) is not None}
    return {tag: float(values[name]) for name, tag in known.items()}
