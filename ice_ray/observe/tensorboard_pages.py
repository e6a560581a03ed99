"""A run as a whole in TensorBoard: pictures and texts, written anew at the end of each stage."""

from __future__ import annotations

import yaml
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from ice_ray.address import StoragePath
from ice_ray.objectives import pareto_front
from ice_ray.observe.event_files import event_file
from ice_ray.observe.report.axes import drop_bounds, time_bounds
from ice_ray.observe.report.run_record import RunRecord


def write_pages(folder: StoragePath, run: RunRecord, card: str | None) -> None:
    """Weight change by layer (the paper's Fig. 2), every trial's time against its drop, widths before and after;
    configuration and model card.

    Args:
        folder: of the event file; what was written there before goes.
        card: the model card; None before stage 2 has ended.
    """
    folder.remove_folder()
    with event_file(folder) if folder.local is None else SummaryWriter(str(folder)) as writer:
        _write(writer, run, card)


def _write(writer: SummaryWriter, run: RunRecord, card: str | None) -> None:
    configuration = yaml.safe_dump(dict(run.config), sort_keys=False).replace("\n", "\n    ")
    writer.add_text("run/configuration", f"    {configuration}")
    if card is not None:
        writer.add_text("run/model_card", card.split("---\n", 2)[-1])
    if changes := run.best["weight_changes"]:
        writer.add_figure("run/weight_change", bars({"change": changes}, "weight change / weight norm"))
    if len(run.candidates) > 1:
        writer.add_figure("run/time_against_drop", trade_off(run))
    if run.summary is not None:
        widths = {name: run.summary[name]["widths"] for name in ("dense", "pruned")}
        writer.add_figure("run/widths", bars(widths, "filters"))


def bars(series: dict[str, dict[str, float]], unit: str) -> Figure:
    """A group of bars per layer, shallow to deep, one for each series."""
    layers = list(next(iter(series.values())))
    figure = Figure(figsize=(max(5.0, 0.3 * len(layers) + 2), 3.5), layout="constrained")
    axes = figure.subplots()
    share = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [place + (number - (len(series) - 1) / 2) * share for place in range(len(layers))]
        axes.bar(places, [values[layer] for layer in layers], share, label=name)
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    axes.set_ylabel(unit)
    if len(series) > 1:
        axes.legend()
    return figure


def trade_off(run: RunRecord) -> Figure:
    """Every finished trial by pruning time and drop, the front and the winner marked."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    front = pareto_front(run.candidates)
    axes.scatter([c.pruning_seconds for c in run.candidates], [c.drop for c in run.candidates], s=18, label="trials")
    axes.plot([c.pruning_seconds for c in front], [c.drop for c in front], "--", lw=1, label="front")
    for candidate in run.candidates:
        if candidate.index == run.winner.index:
            axes.scatter(candidate.pruning_seconds, candidate.drop, s=120, marker="*", label="winner", zorder=3)
    axes.set_xlim(*time_bounds([c.pruning_seconds for c in run.candidates]))
    axes.set_ylim(*drop_bounds([c.drop for c in run.candidates]))
    axes.set_xlabel(f"pruning time (s, {run.best['clock']} clock)")
    axes.set_ylabel("accuracy drop (points)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
