"""What was done and what came out, in words that the terminal, the model card and the report share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ice_ray.engine.config import target_words
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.wording import counted

RUNTIME = "PyTorch eager"
"""What latencies are measured in."""
_ROWS = (
    ("test_accuracy", "accuracy on the test images (%)", "{:.2f}"),
    ("validation_accuracy", "accuracy on the validation images (%)", "{:.2f}"),
    ("parameters", "parameters", "{:,}"),
    ("multiply_adds", "multiply-adds per image", "{:,}"),
    ("file_bytes", "size on disk (bytes)", "{:,}"),
    ("latency_1_ms", f"latency, {RUNTIME}, batch 1 (ms)", "{:.3f}"),
    ("latency_64_ms", f"latency, {RUNTIME}, batch 64 (ms)", "{:.3f}"),
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


def what_was_done(
    config: Mapping[str, Any],
    steps: Sequence[StepRecord],
    never: bool,
    replayed: bool = True,
    found: str | None = None,
) -> str:
    """A few sentences: what was removed and how, what was fine-tuned, whether it was retrained, and the final epochs.

    Args:
        never: whether the threshold at which a step is fine-tuned is `never`.
        replayed: whether stage 2 has been run, which alone has final epochs.
        found: what led to a target, for people.
    """
    pruning = [step for step in steps if step.layers != FINAL_RETRAINING]
    what = "filters" if any(step.filters_removed for step in pruning) else "weights"
    amount = f"{what} of all layers (ratio {config['ratio']:g})"  # compared over layers, or up to a bound
    if "criterion" in config:
        others = ", of some another share" if config["prune"]["ratios"] else ""
        amount = f"{100 * config['ratio']:g}% of the {what} of every prunable layer{others}"
    if config.get("target"):
        amount = f"{what} down to {target_words(config['target'])} of the dense model"
    chosen = f" (criterion {config['criterion']})" if config.get("criterion") else ""
    said = f"Pipeline {config['pipeline']} removed {amount}{chosen} in {counted(len(pruning), 'step')}"
    repair = config.get("repair", "none")
    said += f", each followed by repair ({repair})." if repair != "none" else "."
    said += f" For the target: {found}." if found else ""
    tuned = sum(step.fine_tuned for step in pruning)
    if tuned:
        steps_tuned = "every step" if tuned == len(pruning) else f"{tuned} of {len(pruning)} steps"
        said += f" A fine-tune followed {steps_tuned}."
    else:
        said += f" No step was followed by a fine-tune{' (theta never)' if never else ''}."
    for step in steps:
        if step.layers == FINAL_RETRAINING:
            said += f" At the end the model was retrained for {counted(step.epochs, 'epoch')}."
    if replayed and (final := final_epochs(config)):
        said += f" {counted(final, 'final epoch')} of training followed the last step."
    return said


def final_epochs(config: Mapping[str, Any]) -> int:
    """How many epochs of training stage 2 ends with (`--final.epochs`), by a run's options, nested as they are."""
    return int(config.get("final", {}).get("epochs", 0))


def images_measured(assessment: Mapping[str, Any]) -> str:
    """Over how many images the accuracies are, and whether those of the test had a part in decisions."""
    test, validation = (assessment["pruned"][key] for key in ("test_images", "validation_images"))
    if assessment["config"]["decide_on"] == "test":
        return f"{counted(test, 'test image')}, the validation images too, as in the paper."
    return (
        f"{counted(test, 'test image')}, which no decision has seen; {counted(validation, 'validation image')} decided."
    )


def latency_conditions(assessment: Mapping[str, Any]) -> str:
    """How latency was measured, in one line."""
    how = assessment.get("latency", {})
    passes = assessment["pruned"].get("latency_1_passes")
    parts = [latency_runtime(assessment), f"median of {counted(passes, 'pass')}" if passes else "median"]
    if how:
        parts.append(f"{how['spread']} in brackets")
        parts.append(f"{how['warm_up_passes']} passes to warm up before each of {how['rounds']} rounds in turn")
    return "; ".join(parts)


def latency_runtime(assessment: Mapping[str, Any]) -> str:
    """What was timed: the runtime, on which device, in which arithmetic."""
    return f"{RUNTIME}, {assessment['device']}, {assessment['precision']}"


def _change(key: str, before: float, after: float) -> str:
    return f"{after - before:+.2f}" if key.endswith("accuracy") else f"x {after / before:.3f}"


def _spread(key: str, facts: Mapping[str, Any]) -> str:
    spread = facts.get(f"{key}_spread")
    return f"{spread[0]:.3f} to {spread[1]:.3f}" if spread else ""
