"""A pruned model for other runtimes: `ice-ray export`."""

from __future__ import annotations

from ice_ray.config.jobs import ExportConfig
from ice_ray.exporter import export
from ice_ray.extensions import load_own
from ice_ray.models.registry import check_builder
from ice_ray.observe.terminal import say


def export_job(config: ExportConfig) -> None:
    """Write the file, and say where it is and how large."""
    builder = load_own(config.builder, "builder") if config.builder is not None else None
    if builder is not None and config.builder is not None:
        check_builder(builder, config.builder, "builder")
    file = export(config.model, config.format, config.target, builder)
    say(f"{file}: {file.size() / 1e6:.2f} MB, batches of any size; its logits are the module's")
