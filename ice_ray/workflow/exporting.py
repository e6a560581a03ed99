"""A pruned model for other runtimes: `ice-ray export`, and `--export` of the jobs that make one."""

from __future__ import annotations

from ice_ray.address import StoragePath
from ice_ray.config.jobs import ExportConfig
from ice_ray.export_formats import SUFFIXES
from ice_ray.exporter import export
from ice_ray.extensions import load_own
from ice_ray.models.registry import check_builder
from ice_ray.observe.live import waiting
from ice_ray.observe.terminal import say, shown_path
from ice_ray.workflow.context import JobContext


def export_job(config: ExportConfig) -> None:
    """Write the file, and say where it is and how large."""
    builder = load_own(config.builder, "builder") if config.builder is not None else None
    if builder is not None and config.builder is not None:
        check_builder(builder, config.builder, "builder")
    _tell(export(config.model, config.format, config.target, builder))


def export_missing(context: JobContext) -> None:
    """Write what `--export` asks for of a job's pruned model, as far as it is not there."""
    model, spec = context.folder.pruned_model, context.plan.spec
    for format in context.plan.config.export:
        if not (model / f"model.{SUFFIXES[format]}").is_file():
            with waiting(f"exporting ({format})"):
                file = export(model, format, builder=None if spec.is_known else spec.build)
            _tell(file)


def _tell(file: StoragePath) -> None:
    say(f"{shown_path(file)}: {file.size() / 1e6:.2f} MB, batches of any size; its logits are the module's")
