"""The description of a run: every option of the jobs."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro

from ice_ray.address import at_home, storage_path
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.engine.config import parse_target
from ice_ray.errors import UserError, require
from ice_ray.export_formats import Format
from ice_ray.ingest.config import DataErrors, DecideOn, Placement
from ice_ray.observe.trackers import Tracker
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.ice import IceConfig
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.replay.config import ReplayConfig
from ice_ray.training.config import PrecisionChoice
from ice_ray.trials.config import SearchConfig
from ice_ray.trials.space import check_space_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Options = TypeVar("Options", bound=PipelineConfig)
PipelineOptions = Annotated[Options, tyro.conf.arg(name="")]
"""A pipeline's options: on the command line and in records they stand among the run's own."""
_LARGEST_IMAGE, _LONGEST_NAME = 4096, 100


@dataclass(frozen=True)
class RunConfig(Generic[Options]):
    """Prune a trained classifier: search the hyperparameters on a subsample, replay the winner on all the data.

    Without any option: scikit-learn's digits, and a small ResNet that is trained first.
    """

    preset: str | None = None
    """Defaults from a named file, which options override: paper-cifar10, paper-tinyimagenet, paper-imagenet, small."""
    model: str = "cifar-resnet14"
    """cifar-resnet8/14/20/32/44/56/110/152, cifar-mobilenetv2, torchvision:NAME, timm:NAME, or package.module:function
    that builds yours (it may take num_classes)."""
    weights: Path | None = None
    """Trained weights: .safetensors, or a .pth/.th with a state dict. [default: with digits, trained first]"""
    data: str = "digits"
    """digits, cifar10[:DIR], cifar100[:DIR], fashionmnist[:DIR], tinyimagenet:DIR, imagenet:DIR (train/, val/),
    parquet:DIR (files or folders named train, val, test), imagefolder:DIR (train/, val/ or test/), or
    package.module:function that returns Ray Data datasets."""
    target: str | None = None
    """In place of --ratio, the share of the dense model to keep: macs=0.5, params=0.4, latency=0.6 (PyTorch's) or
    onnx-latency=0.6 (ONNX Runtime's, one thread); or several in one word: "macs=0.5 params=0.6". A ladder,
    macs=0.8,0.6,0.4, gives a model for each share: stage 1 prunes to the last, stage 2 walks down."""
    pipeline: str = "ice"
    """What decides: ice; baseline = a fine-tune after every step; one-shot; aap; imp; bimp = imp with a budgeted dense
    training in front; or package.module:Class. Each has options of its own: --pipeline NAME --help."""
    options: PipelineOptions[Options] = field(default_factory=IceConfig)  # type: ignore[assignment]
    space: str | None = None
    """Grid of the pipeline's hyperparameters: default; for ice also no-training, imagenet (for a million images) and
    the paper's paper-cifar10, paper-tinyimagenet and paper-imagenet; or a .yaml file. [default: default]"""
    batch_size: int = 128
    """Images per SGD step, over all workers together."""
    precision: PrecisionChoice = "auto"
    """Arithmetic of convolutions: auto is bf16 where the device has it; fp16 (with loss scaling) on GPUs."""
    decide_on: DecideOn = "holdout"
    """Images that decide: holdout = val split, or half of the only held-out split (the rest reports);
    test = all of it decides and reports, as in the paper; train = a tenth of the training images."""
    image_size: int | None = None
    """Fit images to this many pixels square. [default: as stored; imagefolder 224]"""
    augment: Literal["auto", "crop-flip", "none"] = "auto"
    """Random crops and flips of training images. [default: by the data]"""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, R G B or as many as the images have, for pixels in [0, 1]; images are normalised with it as
    the model was trained. Images of floats are taken as they come."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, likewise."""
    data_errors: DataErrors = "stop"
    """At a corrupt image: stop and name it, or skip it and count."""
    images: Placement = "auto"
    """Decoded images live in memory (on the device, where they fit there), or are streamed: decoded for every pass.
    [default: streamed where they would not fit into the object store]"""
    search: SearchConfig = field(default_factory=SearchConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    seed: int = 0
    """Every random choice comes from it."""
    storage: str = "runs"
    """Folder of runs; on a cluster one that all nodes share, or an address: s3://bucket/path, gs://bucket/path."""
    name: str | None = None
    """The run's folder below it. [default: carries the UTC time]"""
    resume: bool = False
    """Go on with the run of that name."""
    wait_for_resources: float = 15.0
    """Minutes to wait for nodes that the cluster's autoscaler has yet to add."""
    log_to: tuple[Tracker, ...] = ()
    """Where trials and the replay are logged besides: mlflow, wandb, or both, each an extra. Server, project and key
    come from their own environment variables (MLFLOW_TRACKING_URI, WANDB_PROJECT, WANDB_MODE and so on)."""
    export: tuple[Format, ...] = ()
    """Write the pruned model for other runtimes too: onnx (needs the extra), torch (a .pt2 file), or both."""
    verbose: bool = False
    """Show Ray's own log lines too."""

    def __post_init__(self) -> None:
        self._expand()
        if self.resume and self.name is None:
            raise UserError("--resume needs the --name of the run to go on with")
        if self.name is not None:
            check_folder_name(self.name)
        if self.target is not None:
            parse_target(self.target)
        if getattr(self.options, "calibration_images", math.inf) < (self.replay.workers or 2):
            raise UserError("--calibration-images must be at least as many as --replay.workers, 2 without it")
        if self.image_size is not None:
            check_image_size(self.image_size)
        require(self, "wait_for_resources", 0 <= self.wait_for_resources < math.inf, "must be minutes, at least 0")
        require(self, "batch_size", self.batch_size >= 2, "must be at least 2")
        if not all(0 <= value <= 1 for value in self.mean):
            raise UserError(f"--mean {_spaced(self.mean)} must be numbers in [0, 1], of pixels in [0, 1]")
        if not all(0 < value <= 1 for value in self.std):
            raise UserError(f"--std {_spaced(self.std)} must be numbers in (0, 1], of pixels in [0, 1]")
        if not 0 < len(self.mean) == len(self.std):
            counts = f"--mean has {len(self.mean)} and --std {len(self.std)} numbers"
            raise UserError(f"{counts}: give each one a channel, as the model was trained with")
        if not self.storage.strip():
            raise UserError("--storage: the path is empty")
        try:
            storage_path(self.storage)
        except UserError as error:
            raise UserError(f"--storage: {error}") from error
        wanted = pipeline_named(self.pipeline).Config
        if not isinstance(self.options, wanted):
            raise UserError(f"options of --pipeline {self.pipeline} must be {wanted.__name__}")
        if self.space is not None:
            check_space_name(self.space, self.pipeline)

    def _expand(self) -> None:
        """Home folders in the place of `~`, so that a path is the same however it was written."""
        kind, colon, path = self.data.partition(":")
        paths = {"storage": at_home(self.storage), "data": f"{kind}{colon}{at_home(path)}"}
        if self.space is not None:
            paths["space"] = at_home(self.space)
        for option, value in paths.items():
            object.__setattr__(self, option, value)
        if self.weights is not None:
            object.__setattr__(self, "weights", Path(at_home(str(self.weights))))

    @property
    def outset(self) -> str:
        """What is about to be done, for the first line on the terminal."""
        much = self.target or f"ratio {self.options.ratio:g}"
        return f"{self.model} on {self.data}, pipeline {self.pipeline}, {much}: loading PyTorch and Ray"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, nested as the options are."""
        return plain_values(self)

    def deciding(self) -> dict[str, Any]:
        """The options that decide the result, flat by option name. Resources, names and places are not among them,
        nor is what to do about a corrupt image: a run that one has stopped must be able to go on without it.
        """
        flat = flat_options(self.as_dict()) | ({"ratio": None} if self.target else {})
        return {option: value for option, value in flat.items() if option not in _NOT_DECIDING}


def run_kind(pipeline: str) -> type[RunConfig[Any]]:
    """The description of runs of a pipeline.

    Raises:
        UserError: there is no such pipeline, or an option of its own has the name of one of every run's.
    """
    own = pipeline_named(pipeline).Config
    common = {each.name for each in dataclasses.fields(RunConfig)}
    if taken := common & {each.name for each in dataclasses.fields(own)}:
        raise UserError(f"pipeline '{pipeline}': its option '{min(taken)}' has the name of one of every run's")
    return RunConfig[own]  # type: ignore[valid-type]


def default_run(pipeline: str = "ice") -> RunConfig[Any]:
    """A run of a pipeline in which nothing else was asked for."""
    return run_kind(pipeline)(pipeline=pipeline, options=pipeline_named(pipeline).Config())


def check_folder_name(name: str) -> None:
    """Raises UserError: it is none for a folder of its own below another."""
    if not (0 < len(name) <= _LONGEST_NAME and name.isprintable() and "/" not in name and name[0] not in ".~-"):
        raise UserError(f"--name '{name}' must be a plain folder name")


def check_image_size(pixels: int) -> None:
    """Raises UserError: no image is that small, or none that large would fit into memory in batches."""
    if not 4 <= pixels <= _LARGEST_IMAGE:
        raise UserError(f"--image-size {pixels} must be at least 4 pixels and at most {_LARGEST_IMAGE}")


_NOT_DECIDING = frozenset(
    {"preset", "storage", "name", "resume", "verbose", "log-to", "export", "data-errors", "wait-for-resources"}
    | {"search.cpus", "search.gpus", "search.max-failures", "search.concurrent"}
    | {"search.store-memory-gb", "search.store-disk-gb"}
    | {"replay.workers", "replay.cpus", "replay.gpus", "replay.max-failures"}
)


def _spaced(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def plain_values(config: Any) -> dict[str, Any]:
    """A job's description as JSON has it, nested as its options are: a pipeline's stand among the job's own."""
    values: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if each.name == "options":
            values |= plain_values(value)
        elif dataclasses.is_dataclass(value):
            values[each.name] = plain_values(value)
        elif isinstance(value, tuple):
            values[each.name] = list(value)
        else:
            values[each.name] = str(value) if isinstance(value, Path) else value
    return values


def flat_options(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by the names of their options.

    >>> flat_options({"decide_on": "test", "search": {"max_drop": None}})
    {'decide-on': 'test', 'search.max-drop': None}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        option = f"{prefix}{key.replace('_', '-')}"
        flat |= flat_options(value, f"{option}.") if isinstance(value, dict) else {option: value}
    return flat


def config_from_dict(values: Any, origin: str) -> RunConfig[Any]:
    """The description that `RunConfig.as_dict` gave.

    Raises:
        UserError: fields unknown or of the wrong kind, or a group of them missing.
    """
    from pydantic import ValidationError  # here: --help and a wrong word do without

    try:
        pipeline = str(values["pipeline"])
        known = default_run(pipeline).as_dict()
        _check_fields(values, known)
        own = {each.name for each in dataclasses.fields(pipeline_named(pipeline).Config)}
        nested = {name: value for name, value in values.items() if name not in own}
        nested["options"] = {name: value for name, value in values.items() if name in own}
        # As JSON: there a tuple is a list and a path is a string, and nothing else is taken for what it is not.
        found: RunConfig[Any] = _validator(pipeline).validate_json(json.dumps(nested), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, what = ".".join(str(each) for each in first["loc"] if each != "options"), first["msg"]
        raise UserError(f"'{origin}' does not describe a run of this version ({where}: {what})") from error
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"'{origin}' does not describe a run of this version ({error})") from error
    return found


@cache  # it takes ten times as long to make as to use
def _validator(pipeline: str) -> TypeAdapter[RunConfig[Any]]:
    from pydantic import TypeAdapter

    return TypeAdapter(run_kind(pipeline))


def _check_fields(values: Any, known: dict[str, Any]) -> None:
    """Whether all names are known, and no group of them is missing."""
    if not isinstance(values, dict):
        raise TypeError(f"{values!r:.50} is no mapping of options")
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise KeyError(unknown[0])
    for name, group in known.items():
        if isinstance(group, dict):
            _check_fields(values[name], group)
