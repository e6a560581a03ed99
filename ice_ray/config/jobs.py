"""The options of the jobs beside the whole run."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic

import tyro

from ice_ray.address import storage_path
from ice_ray.config.run import Options, PipelineOptions, RunConfig, check_folder_name, config_from_dict
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.engine.config import parse_rung, parse_target
from ice_ray.errors import UserError, require
from ice_ray.export_formats import Format
from ice_ray.ingest.config import DataErrors, DecideOn
from ice_ray.observe.trackers import Tracker
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pruning.amounts import RATIO_BOUND, is_ratio
from ice_ray.pruning.config import LayerwisePruneConfig
from ice_ray.replay.config import ReplayConfig
from ice_ray.training.config import PrecisionChoice

_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class InspectConfig:
    """Show the prunable layers of a model, their widths before and after, parameters and multiply-adds.

    With --data, --weights and --target it shows the plan of ice-ray prune with the same options: the width that each
    layer would keep, what that is expected to cost, and what one ratio for all layers would. Nothing is trained and
    nothing is written.
    """

    model: str
    """As for ice-ray prune: cifar-resnet56, torchvision:resnet50, timm:NAME, package.module:function."""
    weights: Path | None = None
    """Trained weights: .safetensors, or a .pth/.th with a state dict. Not needed without --data."""
    data: str | None = None
    """Images whose answers share out a target, as for ice-ray prune: cifar10[:DIR], imagefolder:DIR and the others;
    labels are not looked at. [default: without images, one ratio for all layers]"""
    image_size: int | None = None
    """Images are this many pixels square (224 for most models of ImageNet). [default: those of --data, without it 32]
    """
    num_classes: int | None = None
    """Classes that the model tells apart. [default: those of --data, without it 10]"""
    ratio: float = 0.5
    """Share of the filters to remove, inside (0, 1)."""
    target: str | None = None
    """In place of --ratio, the share of the dense model to keep: macs=0.5, params=0.4, latency=0.6 (PyTorch's) or
    onnx-latency=0.6 (ONNX Runtime's, one thread); or several in one word: "macs=0.5 params=0.6"."""
    prune: LayerwisePruneConfig = field(default_factory=LayerwisePruneConfig)
    precision: PrecisionChoice = "auto"
    """Arithmetic with which latency is measured."""
    decide_on: DecideOn = "holdout"
    """As for ice-ray prune: train sets a tenth of the training images aside."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, as for ice-ray prune."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, likewise."""
    data_errors: DataErrors = "stop"
    """At a corrupt image: stop and name it, or skip it."""
    seed: int = 0
    """Chooses the images that are looked at."""

    def __post_init__(self) -> None:
        require(self, "ratio", is_ratio(self.ratio), RATIO_BOUND)
        if self.target is not None:
            parse_rung(self.target, "inspect")
        _ = self.run  # which checks what they have in common
        if self.num_classes is not None and self.data is not None:
            raise UserError("--num-classes: --data says how many there are; leave it out")
        if self.num_classes is not None and not 2 <= self.num_classes <= _MOST_CLASSES:
            raise UserError(f"--num-classes {self.num_classes} must be at least 2 and at most {_MOST_CLASSES}")

    @property
    def run(self) -> RunConfig[IceConfig]:
        """The run whose plan is shown; without `data` it is one on any."""
        common = ("weights", "image_size", "target", "precision", "decide_on", "mean", "std", "data_errors", "seed")
        options = IceConfig(ratio=self.ratio, prune=self.prune)
        own = {name: getattr(self, name) for name in common} | ({} if self.data is None else {"data": self.data})
        return RunConfig(model=self.model, options=options, **own)

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""
        seen = "" if self.data is None else f" on {self.data}"
        return f"{self.model}{seen}, {self.target or f'ratio {self.ratio:g}'}: loading PyTorch"


@dataclass(frozen=True)
class ExportConfig:
    """Write a pruned model as ONNX or as an exported program of PyTorch, checked against the module's logits."""

    model: Annotated[str, tyro.conf.Positional]
    """The pruned_model folder of a run, or its address."""
    format: Format = "onnx"
    """onnx (needs the extra: pip install 'ice_ray[onnx]'), or torch (a .pt2 file for torch.export.load)."""
    target: str | None = None
    """The file to write. [default: model.onnx or model.pt2 in the folder]"""
    builder: str | None = None
    """For a model of your own: package.module:function that builds its dense form, as for --model."""

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""
        return f"{self.model} to {self.format}: loading PyTorch"


@dataclass(frozen=True)
class ReportConfig:
    """Write report.html of a run anew, from its files; of several runs a comparison too."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders or addresses of runs (or of replays below them) whose search has ended."""
    target: str | None = None
    """The comparison's file. [default: comparison.html beside the first run]"""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("give the folder of at least one run")
        if self.target is not None and len(self.runs) < 2:
            raise UserError("--target is the comparison's file: give more than one run")

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""
        return f"reading {', '.join(self.runs)}"


@dataclass(frozen=True)
class ReplayJobConfig(Generic[Options]):
    """Replay the winner of a finished search, or any of its trials, on all the data: stage 2 alone."""

    config: str
    """best.json, as a search wrote it, or its address; the replay's results go beside it, its options default to the
    search's."""
    trial: int | None = None
    """Replay this trial of the search, into replays/trial-NNN of that folder. [default: the winner]"""
    name: str | None = None
    """Into replays/NAME of that folder: a trial is replayed with other settings, and the first replay stays. [default:
    the trial's, of the winner the search's own folder]"""
    target: str | None = None
    """In place of --ratio, the share of the dense model to keep, as for ice-ray prune. [default: the search's, unless
    --ratio is given]"""
    options: PipelineOptions[Options] = field(default_factory=IceConfig)  # type: ignore[assignment]
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    resume: bool = False
    """Go on with a replay that was interrupted there."""
    wait_for_resources: float = 15.0
    """Minutes to wait for nodes that the cluster's autoscaler has yet to add."""
    log_to: tuple[Tracker, ...] = ()
    """Where the replay is logged besides: mlflow, wandb, or both; see ice-ray prune."""
    export: tuple[Format, ...] = ()
    """Write the pruned model for other runtimes too: onnx (needs the extra), torch (a .pt2 file), or both."""
    verbose: bool = False
    """Show Ray's own log lines too."""

    def __post_init__(self) -> None:
        if self.target is not None:
            parse_target(self.target)
        if self.name is not None:
            check_folder_name(self.name)

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""
        which = "the winner" if self.trial is None else f"trial {self.trial}"
        return f"{which} of {self.config} on all the data: loading PyTorch and Ray"


def replay_defaults(path: str) -> ReplayJobConfig[Any]:
    """The defaults of a replay of `path`: what its search was given."""
    with _read_for_good_later():
        searched = config_from_dict(_searched(path), path)
        own = {name: getattr(searched, name) for name in ("options", "replay", "target")}
        return ReplayJobConfig(path, **own)
    return ReplayJobConfig(path)


def searched_pipeline(path: str) -> str | None:
    """The pipeline whose search wrote `path`; None where that cannot be read."""
    with _read_for_good_later():
        return str(_searched(path)["pipeline"])
    return None


def _searched(path: str) -> Any:
    return json.loads(storage_path(path).read_now())["config"]


def _read_for_good_later() -> suppress:
    """Reading the file for good says what is wrong with it."""
    return suppress(OSError, ValueError, KeyError, TypeError, RecursionError, UserError)
