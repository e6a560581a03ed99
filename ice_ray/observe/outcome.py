"""Dense against pruned in words: the rows of the table that the terminal, the model card and the report show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ROWS = (
    ("test_accuracy", "accuracy on the test images (%)", "{:.2f}"),
    ("validation_accuracy", "accuracy on the images that decided (%)", "{:.2f}"),
    ("parameters", "parameters", "{:,}"),
    ("multiply_adds", "multiply-adds per image", "{:,}"),
    ("file_bytes", "size on disk (bytes)", "{:,}"),
    ("latency_1_ms", "latency, batch 1 (ms)", "{:.3f}"),
    ("latency_64_ms", "latency, batch 64 (ms)", "{:.3f}"),
)


@dataclass(frozen=True)
class OutcomeRow:
    """One figure of both networks, and what became of it: points for an accuracy, else a factor.

    Attributes:
        key: its name in summary.json.
        dense_spread, pruned_spread: of a latency, from the 5th to the 95th percentile; else empty.
    """

    key: str
    label: str
    dense: str
    pruned: str
    change: str
    dense_spread: str
    pruned_spread: str


def outcome_rows(dense: Mapping[str, Any], pruned: Mapping[str, Any]) -> list[OutcomeRow]:
    """The rows that the assessment of both networks has figures for."""
    return [
        OutcomeRow(
            key,
            label,
            form.format(dense[key]),
            form.format(pruned[key]),
            _change(key, dense[key], pruned[key]),
            _spread(key, dense),
            _spread(key, pruned),
        )
        for key, label, form in _ROWS
        if key in dense and key in pruned
    ]


def images_measured(assessment: Mapping[str, Any]) -> str:
    """Over how many images the accuracies are, and whether the report's had a part in decisions."""
    reporting, deciding = (assessment["pruned"][key] for key in ("test_images", "validation_images"))
    if assessment["config"]["decide_on"] == "test":
        return f"The same {reporting} images decided and report, as in the paper."
    return f"{reporting} test images, which no decision has seen; {deciding} others decided."


def latency_conditions(assessment: Mapping[str, Any]) -> str:
    """How latency was measured, in one line."""
    how = assessment.get("latency", {})
    passes = assessment["pruned"].get("latency_1_passes")
    parts = [f"median of {passes} passes" if passes else "median"]
    if how:
        parts.append(f"{how['spread']} in brackets")
        parts.append(f"{how['warm_up_passes']} passes to warm up before each of {how['rounds']} rounds in turn")
    threads = how.get("threads")
    device = assessment["device"].split(",")[0] if threads else assessment["device"]
    parts.append(f"{device}, {threads} thread{'s' if threads != 1 else ''}" if threads else device)
    return "; ".join([*parts, assessment["precision"]])


def _change(key: str, before: float, after: float) -> str:
    return f"{after - before:+.2f}" if key.endswith("accuracy") else f"x {after / before:.3f}"


def _spread(key: str, facts: Mapping[str, Any]) -> str:
    spread = facts.get(f"{key}_spread")
    return f"{spread[0]:.3f} to {spread[1]:.3f}" if spread else ""
