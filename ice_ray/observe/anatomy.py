"""What can be pruned in a model, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from ice_ray.errors import in_one_line
from ice_ray.models.units import PruningStep
from ice_ray.observe.terminal import say, show


@dataclass(frozen=True)
class Change:
    """A quantity before and after."""

    name: str
    dense: int
    pruned: int


def show_anatomy(
    model: str,
    steps: Sequence[PruningStep],
    widths: Mapping[str, int],
    parameters: Mapping[str, int],
    totals: Sequence[Change],
    refused: Mapping[str, str],
) -> None:
    """Print the units of every step, the totals, and the layers that have no part in it with their reasons.

    Args:
        widths: filters left in each unit's layer.
        parameters: of each unit's layer in the dense model.
    """
    table = Table(title=f"{model}: {len(steps)} pruning steps", title_justify="left")
    table.add_column("step", justify="right")
    table.add_column("layer", overflow="fold")
    for column in ("filters", "kept", "groups", "parameters"):
        table.add_column(column, justify="right")
    for step in steps:
        for number, unit in enumerate(step.units):
            cells = [unit.filters, widths[unit.layer], unit.groups, f"{parameters[unit.layer]:,}"]
            table.add_row(str(step.number) if number == 0 else "", in_one_line(unit.layer), *map(str, cells))
    show(table)
    for change in totals:
        say(f"{change.name}: {change.dense:,} to {change.pruned:,} (x {change.pruned / change.dense:.3f})")
    if refused:
        say(f"not pruned ({len(refused)} layers):")
    for layer, reason in refused.items():
        say(f"  {layer}: {reason}")
