"""The model card: README.md beside the weights, as the Hugging Face hub shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
import yaml

from ice_ray.address import StoragePath
from ice_ray.files import write_text
from ice_ray.hyperparameters import NEVER, Hyperparameters
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.copyable import exporting, is_python, loading, pasted
from ice_ray.observe.outcome import images_measured, latency_conditions, outcome_rows, what_was_done
from ice_ray.pipelines.records import StepRecord

CARD = "README.md"


def write_card(
    folder: StoragePath,
    name: str,
    summary: Mapping[str, Any],
    description: Mapping[str, Any],
    hyperparameters: Hyperparameters,
) -> None:
    """Write README.md into a `pruned_model` folder, which can then be uploaded to the hub as it is.

    Args:
        name: the run's.
        summary: what summary.json holds.
        description: what model.json holds.
    """
    config, pruned = summary["config"], summary["pruned"]
    preprocessing = description["preprocessing"]
    steps = [StepRecord(**record) for record in summary["steps"]]
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("ice_ray.observe", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("model_card.md.jinja")  # Markdown, which the hub itself makes harmless: nothing is escaped
    text = template.render(
        front_matter=yaml.safe_dump(_front_matter(name, config, pruned), sort_keys=False, allow_unicode=True),
        name=name,
        model=config["model"],
        data=config["data"],
        dense=summary["dense"],
        pruned=pruned,
        outcome=outcome_rows(summary["dense"], pruned),
        images=images_measured(summary),
        conditions=latency_conditions(summary),
        own_builder=not ModelSpec(config["model"], 1).is_known,
        loading=loading(folder.shown(), config["model"], summary["commands"]),
        exporting=exporting(folder.shown(), config["model"], summary["commands"]),
        shell="python" if is_python(summary["commands"][-1]) else "sh",
        image_shape=description["image_shape"],
        mean=_listed(preprocessing["mean"]),
        std=_listed(preprocessing["std"]),
        classes=description["builder"]["num_classes"],
        commands=[pasted(command) for command in summary["commands"]],
        how=what_was_done(config, steps, NEVER in hyperparameters.as_dict().values(), found=summary.get("found")),
        hyperparameters="" if set(hyperparameters.in_effect.values()) == {NEVER} else str(hyperparameters),
        versions=", ".join(f"{package} {version}" for package, version in summary["packages"].items()),
    )
    write_text(folder / CARD, text)


def _front_matter(name: str, config: Mapping[str, Any], pruned: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub reads; accuracy is a share there."""
    data = config["data"]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data.partition(":")[0]},
        "metrics": [{"type": "accuracy", "value": round(pruned["test_accuracy"] / 100, 4)}],
    }
    return {
        "library_name": "ice_ray",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pruning", "structured-pruning", "safetensors"],
        "model-index": [{"name": name, "results": [result]}],
    }


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
