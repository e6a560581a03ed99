"""What pruning gives back: the smaller model, and how it came about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.artifact import load_pruned, read_description, save_pruned
from ice_ray.errors import UserError
from ice_ray.export_formats import SUFFIXES, check_format
from ice_ray.exporter import write_exported
from ice_ray.models.copies import copied
from ice_ray.models.registry import ModelSpec
from ice_ray.observe.ladder import draw_ladder, draw_rungs, ladder_table
from ice_ray.observe.tables import as_html, as_text, outcome_table
from ice_ray.observe.words import duration
from ice_ray.pipelines.records import FINAL_RETRAINING, StepRecord
from ice_ray.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from ice_ray.export_formats import Format

_REBUILDING = ("schema_version", "builder", "image_shape", "widths", "kept", "frozen", "layout", "sha256")
"""What `model.json` says beside the facts that a saved model is written with."""


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A pruned model and how it came about: of `ice_ray.prune`, or of a run's stage 2 (`Result.of_run`).

    It shows itself as a table, on the terminal (`print(result)`) and in a notebook.

    Attributes:
        model: physically smaller, of the class that was given, in eval mode. That of `prune` is on the device it was
            pruned on, that of a run on the CPU. The same parameters are frozen (requires_grad=False) as in the model
            that was given.
        records: one per pruning step, and one of the retraining at the end where there was one.
        pruning_seconds: PT of eq. 2 of the paper, on the wall's clock.
        description: what `model.json` of the saved model says: how it is rebuilt from its dense form (`builder`,
            `image_shape`, `widths`, `frozen`, `layout`), and under `metrics` the figures of both networks, `dense` and
            `pruned`: `validation_accuracy`, `parameters`, `multiply_adds`, `file_bytes`, of a run also
            `test_accuracy` and latencies, of a ladder's rung `latency_64_ms`, of a batch of 64.
        above: of a ladder, the rung from which this one goes on: records and `pruning_seconds` have what came since.

    >>> import torch
    >>> from torch import nn
    >>> import ice_ray
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.features = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    ...         self.head = nn.Linear(16, 2)
    ...     def forward(self, images):
    ...         return self.head(self.features(images).mean((2, 3)))
    >>> some = ice_ray.ImageSet(torch.full((16, 8, 8, 3), 99, dtype=torch.uint8), torch.ones(16, dtype=torch.int64))
    >>> result = ice_ray.prune(Net(), ice_ray.PruningData(some, some), ratio=0.5)
    >>> result.widths
    {'features.0': 8, 'features.2': 8}
    >>> result.original_parameters, result.parameters
    (2802, 826)
    >>> list(result.steps.columns[:3])
    ['layers', 'filters_removed', 'unpruned_share']
    """

    model: nn.Module
    records: tuple[StepRecord, ...]
    pruning_seconds: float
    description: Mapping[str, Any]
    above: Result | None = None

    @classmethod
    def of_run(
        cls,
        pruned_model: str | StoragePath,
        summary: Mapping[str, Any],
        builder: Callable[..., nn.Module] | None = None,
        above: Result | None = None,
    ) -> Result:
        """That of a run, from what its stage 2 has written.

        Args:
            pruned_model: the run's folder of that name.
            summary: what its `summary.json` holds.
            builder: for a model of your own, as for `load_pruned`.
            above: that of the rung above.

        Raises:
            UserError: as `load_pruned`.
        """
        folder = storage_path(pruned_model)
        records = tuple(StepRecord(**record) for record in summary["steps"])
        model = load_pruned(folder, builder)
        return cls(model, records, summary["replay_pruning_seconds"], read_description(folder), above)

    @property
    def rungs(self) -> tuple[Result, ...]:
        """Of the ladder that ends here (`target="macs=0.8,0.6,0.4"`), from the top, each with a model that can be saved
        and exported; else this one alone.
        """
        return (self,) if self.above is None else (*self.above.rungs, self)

    @property
    def name(self) -> str:
        """What it was pruned to: `macs=0.8`, of several quantities `macs=0.8,params=0.9`, or `ratio=0.5`."""
        config = self.description["config"]
        return ",".join(str(config["target"] or f"ratio={config['ratio']:g}").split())

    @property
    def accuracy(self) -> float:
        """Of the pruned model on the validation images, percent, in the precision of the pruning (`description` says
        which): in bf16 an image or two may come out otherwise than in float32.
        """
        return float(self._pruned["validation_accuracy"])

    @property
    def original_accuracy(self) -> float:
        """Of the dense model on the validation images, percent."""
        return float(self._dense["validation_accuracy"])

    @property
    def parameters(self) -> int:
        """Numbers that the pruned model has."""
        return int(self._pruned["parameters"])

    @property
    def original_parameters(self) -> int:
        """Numbers that the dense model has."""
        return int(self._dense["parameters"])

    @property
    def macs(self) -> int:
        """Multiply-adds of the pruned model's convolutions and linear layers, for one image."""
        return int(self._pruned["multiply_adds"])

    @property
    def original_macs(self) -> int:
        """Multiply-adds of the dense model's convolutions and linear layers, for one image."""
        return int(self._dense["multiply_adds"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the model takes."""
        channels, height, width = self.description["image_shape"]
        return channels, height, width

    @property
    def widths(self) -> dict[str, int]:
        """Filters left in each layer that was pruned, by the layer's name."""
        return dict(self.description["widths"])

    @property
    def steps(self) -> DataFrame:
        """The records as a pandas DataFrame, a row per step; columns as the attributes of `StepRecord`: accuracies and
        drop in percent and points, times in seconds.
        """
        import pandas as pd  # only where it is asked for: it takes a while to load

        frame = pd.DataFrame([record.as_dict() for record in self.records])
        return frame.set_index("step") if len(frame) else frame

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw accuracy over the share of the parameters that is left, step by step. Of a ladder: accuracy over
        multiply-adds, of the dense model and all rungs, and in a second panel over latency.

        Args:
            axes: matplotlib's, to draw on, of a ladder without the second panel. [default: those of a new figure]
        """
        import matplotlib.pyplot as plt  # likewise

        if self.above is not None and axes is None:
            return draw_ladder(plt.figure(), self._side_by_side, self._name)
        if self.above is not None and axes is not None:
            draw_rungs(axes, self._side_by_side)
            return axes
        own = plt.subplots()[1] if axes is None else axes
        stands = [record for record in self.records if record.accepted]
        shares = [100.0, *(100 * record.unpruned_share for record in stands)]
        own.plot(shares, [self.original_accuracy, *(record.accuracy for record in stands)], marker="o", label="steps")
        tuned = [record for record in stands if record.fine_tuned]
        own.plot(
            [100 * record.unpruned_share for record in tuned],
            [record.accuracy for record in tuned],
            linestyle="none",
            marker="s",
            label="fine-tuned",
        )
        own.axhline(self.original_accuracy, linestyle="--", color="grey", label="dense")
        own.set_xlim(102, min(shares) - 2)
        own.set_xlabel("parameters left (%)")
        own.set_ylabel("accuracy on the validation images (%)")
        own.set_title(f"{self._name}: {self.original_accuracy:.2f}% to {self.accuracy:.2f}%")
        own.legend()
        return own

    def save(self, folder: str | Path | StoragePath) -> StoragePath:
        """Write the model as the jobs do, `model.safetensors` and `model.json` without code in them, and return the
        folder's path. `ice_ray.load_pruned(folder, builder=...)` gives the model back bit for bit.

        Args:
            folder: made where it is not there; or an address (`s3://bucket/path`).

        Raises:
            UserError: it cannot be written to.
        """
        own, known = storage_path(folder), self.description
        facts = {key: value for key, value in known.items() if key not in _REBUILDING}
        own.check_writable("folder")
        try:
            save_pruned(
                own,
                ModelSpec(**known["builder"]),
                self.image_shape,
                {**known["widths"], **known.get("kept", {})},
                self.model.state_dict(),
                facts,
                known["frozen"],
                known["layout"],
            )
        except OSError as error:
            raise UserError(f"folder '{folder}' cannot be written to ({error.strerror or error})") from error
        return own

    def export(self, file: str | Path | StoragePath) -> StoragePath:
        """Write the model for another runtime, with a batch of any size, and return the file's path; as
        `ice_ray.export` does from a saved model.

        Args:
            file: `NAME.onnx` (needs the extra `onnx`) or `NAME.pt2` (for `torch.export.load`); the folders that it lies
                in are made where they are not there.

        Raises:
            UserError: another suffix, the extra is missing, the file cannot be written, or the model is none that can
                be exported.
        """
        own = storage_path(file)
        formats: dict[str, Format] = {f".{suffix}": format for format, suffix in SUFFIXES.items()}
        format = formats.get(own.suffix.lower())
        if format is None:
            raise UserError(f"file '{file}' must end in {' or '.join(formats)}: its suffix says in which format")
        check_format(format)
        write_exported(copied(self.model).cpu().eval(), self.description, format, own)
        return own

    def __repr__(self) -> str:
        return (
            f"Result({self._name}: accuracy {self.original_accuracy:.2f}% to {self.accuracy:.2f}%, parameters "
            f"{self.original_parameters:,} to {self.parameters:,}, multiply-adds {self.original_macs:,} to "
            f"{self.macs:,})"
        )

    def __str__(self) -> str:
        return "\n\n".join(as_text(table).rstrip("\n") for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(map(as_html, self._tables()))

    def _tables(self) -> list[Any]:
        """Of a ladder all rungs, and the last of them by itself."""
        if self.above is None:
            return [self._table()]
        title = f"{self._name}: a ladder of {counted(len(self.rungs), 'rung')}"
        return [ladder_table(self._side_by_side, title), self._table(f", {self.name}")]

    @property
    def _side_by_side(self) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        return [(rung.name, rung._dense, rung._pruned) for rung in self.rungs]

    def _table(self, of: str = "") -> Any:
        steps = sum(record.layers != FINAL_RETRAINING for record in self.records)
        title = f"{self._name}{of}: {counted(steps, 'pruning step')} in {duration(self.pruning_seconds)}"
        found = self.description["config"].get("found")
        return outcome_table(self._dense, self._pruned, f"{title}\n{found}" if found else title)

    @property
    def _name(self) -> str:
        return str(self.description["builder"]["name"]).rpartition(":")[2]

    @property
    def _dense(self) -> Mapping[str, Any]:
        dense: Mapping[str, Any] = self.description["metrics"]["dense"]
        return dense

    @property
    def _pruned(self) -> Mapping[str, Any]:
        pruned: Mapping[str, Any] = self.description["metrics"]["pruned"]
        return pruned
