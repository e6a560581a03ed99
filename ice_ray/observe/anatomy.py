"""What can be pruned in a model, and what that comes to: for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from torch import nn

from ice_ray.engine.config import Found
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.sizes import sizes
from ice_ray.errors import in_one_line
from ice_ray.observe.tables import as_html, as_text
from ice_ray.pruning.amounts import Amounts
from ice_ray.wording import counted

if TYPE_CHECKING:
    from pandas import DataFrame

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class InspectedLayer:
    """A layer that can be pruned.

    Attributes:
        step: in which it is pruned; counts from 1.
        layer: its name in the model.
        filters, kept: before and after.
        groups: of filters that lose equally many.
        parameters: of this layer, before.
        loss: what the width is expected to cost, in nats; None where that was not looked at.
    """

    step: int
    layer: str
    filters: int
    kept: int
    groups: int
    parameters: int
    loss: float | None = None


@dataclass(frozen=True, repr=False)
class Inspection:
    """The layers that can be pruned, with their widths before and after, what that comes to, and the other layers.

    It shows itself as a table, on the terminal (`print(inspection)`) and in a notebook.

    Attributes:
        name: of the model, for people.
        units: the layers that can be pruned, in the order of the steps.
        refused: why each of the other layers is not, by its name.
        ratio: share of the filters that goes.
        found: what led to a target, if one was given.
        images_by: how to give images, by which a target is allocated.
        dense, pruned: of both models `parameters`, `multiply_adds` for one image, and `file_bytes`.
    """

    name: str
    units: tuple[InspectedLayer, ...]
    refused: Mapping[str, str]
    ratio: float
    dense: Mapping[str, int]
    pruned: Mapping[str, int]
    found: Found | None = None
    images_by: str = "images="

    @classmethod
    def of(
        cls, network: DenseNetwork, amounts: Amounts, name: str, found: Found | None = None, images_by: str = "images="
    ) -> Inspection:
        """That of a traced network; nothing is trained.

        Raises:
            UserError: the amounts do not fit the network.
        """
        amounts.check(network.steps)
        kept = {unit.layer: unit.filters - amounts.removed(unit) for unit in network.units}
        dense, pruned = network.build(_CPU), network.build_pruned(kept, _CPU)
        losses = dict(found.losses) if found is not None else {}
        units = (
            InspectedLayer(
                step.number,
                unit.layer,
                unit.filters,
                kept[unit.layer],
                unit.groups,
                _parameters(dense.get_submodule(unit.layer)),
                losses.get(unit.layer),
            )
            for step in network.steps
            for unit in step.units
        )
        return cls(
            name,
            tuple(units),
            dict(network.refused),
            amounts.ratio,
            sizes(network, dense),
            sizes(network, pruned),
            found,
            images_by,
        )

    @property
    def layers(self) -> DataFrame:
        """The layers that can be pruned as a pandas DataFrame, a row each, by name."""
        import pandas as pd  # only where it is asked for: it takes a while to load

        return pd.DataFrame([vars(unit) for unit in self.units]).set_index("layer")

    @property
    def table(self) -> Table:
        """The layers that can be pruned."""
        steps = len({unit.step for unit in self.units})
        table = Table(title=f"{self.name}: {counted(steps, 'pruning step')}", title_justify="left")
        table.add_column("step", justify="right")
        table.add_column("layer", overflow="fold")
        in_groups = any(unit.groups > 1 for unit in self.units)
        costs = any(unit.loss is not None for unit in self.units)
        numbers = ["filters", "kept", "share", *["groups"] * in_groups, "parameters", *["loss (nats)"] * costs]
        for column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        before = 0
        for unit in self.units:
            cells = [f"{unit.filters}", f"{unit.kept}", f"{unit.kept / unit.filters:.0%}"]
            cells += [f"{unit.groups}"] * in_groups + [f"{unit.parameters:,}"]
            cells += ["" if unit.loss is None else f"{unit.loss:.3g}"] * costs
            step = str(unit.step) if unit.step != before else ""
            table.add_row(step, in_one_line(unit.layer), *cells)
            before = unit.step
        return table

    @property
    def lines(self) -> list[str]:
        """What they come to, and the other layers."""
        shown = {"parameters": "parameters", "multiply_adds": "multiply-adds per image"}
        lines = [
            f"{said}: {self.dense[key]:,} to {self.pruned[key]:,} (x {self.pruned[key] / self.dense[key]:.3f})"
            for key, said in shown.items()
        ]
        if self.found is not None:
            lines.append(self.found.words)
            lines.append(
                "loss: of each layer alone, its readers refitted: how far the answers are from the dense model's "
                "(Kullback-Leibler divergence); repair and fine-tuning come after"
                if self.found.losses
                else f"without images one ratio holds for all layers; {self.images_by} would show the width of each "
                "that costs least, which a run keeps"
            )
        if self.refused:
            lines.append(f"not pruned ({counted(len(self.refused), 'layer')}):")
        return [*lines, *(f"  {in_one_line(layer)}: {reason}" for layer, reason in self.refused.items())]

    def __repr__(self) -> str:
        return (
            f"Inspection({self.name}: {counted(len(self.units), 'layer')} to prune, ratio {self.ratio:g}, parameters "
            f"{self.dense['parameters']:,} to {self.pruned['parameters']:,}, multiply-adds "
            f"{self.dense['multiply_adds']:,} to {self.pruned['multiply_adds']:,})"
        )

    def __str__(self) -> str:
        return as_text(self.table) + "\n".join(self.lines)

    def _repr_html_(self) -> str:
        return as_html(self.table) + as_html(self._notes)

    @property
    def _notes(self) -> Table:
        table = Table("")
        for line in self.lines:
            table.add_row(line.strip())
        return table


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
