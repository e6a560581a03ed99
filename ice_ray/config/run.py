"""The description of a run: every option of the jobs."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ice_ray.address import at_home, place
from ice_ray.data.images import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.engine.actions import Counting
from ice_ray.engine.target import parse_target
from ice_ray.errors import UserError
from ice_ray.ingest.load import DataErrors, Placement
from ice_ray.ingest.roles import DecideOn
from ice_ray.observe.trackers import Tracker
from ice_ray.pipelines.aap import AapConfig
from ice_ray.pipelines.ablations import Ablations
from ice_ray.pipelines.imp import ImpConfig
from ice_ray.pipelines.prepare import FreezeConfig
from ice_ray.pipelines.registry import is_ignored
from ice_ray.pruning.config import PruneConfig
from ice_ray.repair import RepairKind
from ice_ray.replay.config import ReplayConfig
from ice_ray.search.config import SearchConfig
from ice_ray.training.config import FineTuneConfig
from ice_ray.training.precision import PrecisionChoice

DEFAULT_RATIO = 0.5
_LARGEST_IMAGE, _LONGEST_NAME = 4096, 100


@dataclass(frozen=True)
class RunConfig:
    """Prune a trained classifier: search the hyperparameters on a subsample, replay the winner on all the data.

    Without any option: scikit-learn's digits, a small ResNet that is trained first, a reduced grid.
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
    ratio: float | None = None
    """Share of the filters to remove from every prunable layer, inside (0, 1). [default: 0.5 without --target]"""
    target: str | None = None
    """In place of --ratio: macs=0.5, params=0.4 or latency=0.6, the share of the dense model to keep."""
    prune: PruneConfig = field(default_factory=PruneConfig)
    criterion: str = "l1"
    """Which filters go first: l1, l2, bn-scale, taylor, mean-activation, entropy, entropy-densities (the authors'),
    l2-fan-in, residual (what least squares cannot make up for stays), random, or package.module:Class."""
    repair: RepairKind = "none"
    """Repair after every removal, without labels: none (the paper); bn = batch-norm statistics estimated anew;
    least-squares = the layers around refitted, so that the sums behind are those of the dense model; reconstruction =
    these layers then trained by themselves towards the same."""
    pipeline: str = "ice"
    """What decides: ice; ice-plus = ice with other defaults: --criterion residual --repair reconstruction
    --prune.calibration-images 2000 --decision-error 0.01 and a space of its own: no fine-tunes (theta 100), perhaps a
    final retraining; baseline = a fine-tune
    after every step; one-shot; aap; imp; bimp = imp with a budgeted dense training in front; or
    package.module:function."""
    threshold: bool = True
    """Whether ice fine-tunes only where the drop has reached theta; without, after every step."""
    freezing: bool = True
    """Whether ice holds layers fixed."""
    scheduler: bool = True
    """Whether ice bounds its rates by eq. 1; without, they are LR_base."""
    aap: AapConfig = field(default_factory=AapConfig)
    imp: ImpConfig = field(default_factory=ImpConfig)
    space: str | None = None
    """Grid of the pipeline's hyperparameters: cifar10, tinyimagenet, imagenet, digits (ice, ice-plus), default (the
    others), or a .yaml file. [default: the data's own]"""
    batch_size: int = 128
    """Images per SGD step, over all workers together."""
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    precision: PrecisionChoice = "auto"
    """Arithmetic of convolutions: auto is bf16 where the device has it; fp16 (with loss scaling) on GPUs."""
    decide_on: DecideOn = "holdout"
    """Images that decide: holdout = val split, or half of the only held-out split (the rest reports);
    test = all of it decides and reports, as in the paper; train = a tenth of the training images."""
    decision_error: float = 0.0
    """How probable a wrong answer to the threshold's question may be, for looking at fewer images; 0 = exact."""
    image_size: int | None = None
    """Fit images to this many pixels square. [default: as stored; imagefolder 224]"""
    augment: Literal["auto", "crop-flip", "none"] = "auto"
    """Random crops and flips of training images. [default: by the data]"""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each channel, R G B, for pixels in [0, 1]; images are normalised with it as the model was trained."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each channel, R G B."""
    data_errors: DataErrors = "stop"
    """At a corrupt image: stop and name it, or skip it and count."""
    images: Placement = "auto"
    """Decoded images live in memory (on the device, where they fit there), or are streamed: decoded for every pass.
    [default: streamed where they would not fit into the object store]"""
    alpha: Counting = "parameters"
    """What eq. 1's alpha counts: parameters, or conv-weights as the authors' program does."""
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
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
    verbose: bool = False
    """Show Ray's own log lines too."""

    def __post_init__(self) -> None:
        self._expand()
        if self.resume and self.name is None:
            raise UserError("--resume needs the --name of the run to go on with")
        if self.name is not None and not _is_folder_name(self.name):
            raise UserError(f"--name '{self.name}' must be a plain folder name")
        check_amount(self.ratio, self.target)
        if self.ablations != Ablations() and self.pipeline not in ("ice", "ice-plus"):
            raise UserError("--no-threshold, --no-freezing and --no-scheduler are for --pipeline ice and ice-plus")
        if self.prune.calibration_images < (self.replay.workers or 2):
            raise UserError("--prune.calibration-images must be at least as many as --replay.workers, 2 without it")
        if not 0 <= self.decision_error < 0.5:
            raise UserError(f"--decision-error {self.decision_error} must be in [0, 0.5)")
        if self.image_size is not None:
            check_image_size(self.image_size)
        if not 0 <= self.wait_for_resources < math.inf:
            raise UserError(f"--wait-for-resources {self.wait_for_resources} must be minutes, at least 0")
        if self.batch_size < 2:
            raise UserError(f"--batch-size {self.batch_size} must be at least 2")
        if not all(0 <= value <= 1 for value in self.mean):
            raise UserError(f"--mean {_spaced(self.mean)} must be three numbers in [0, 1], of pixels in [0, 1]")
        if not all(0 < value <= 1 for value in self.std):
            raise UserError(f"--std {_spaced(self.std)} must be three numbers in (0, 1], of pixels in [0, 1]")
        if not 0 < self.freeze.probe_learning_rate < math.inf:
            raise UserError(f"--freeze.probe-learning-rate {self.freeze.probe_learning_rate} must be above 0")
        if not self.storage.strip():
            raise UserError("--storage: the path is empty")
        try:
            place(self.storage)
        except UserError as error:
            raise UserError(f"--storage: {error}") from error
        self._check_pipeline()

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

    def _check_pipeline(self) -> None:
        """Raises UserError: there are options of another pipeline."""
        for group, default in (("aap", AapConfig()), ("imp", ImpConfig())):
            given = getattr(self, group)
            changed = (
                each.name for each in dataclasses.fields(given) if vars(given)[each.name] != vars(default)[each.name]
            )
            option = f"{group}.{next(changed, '')}".replace("_", "-")
            if given != default and (why := is_ignored(self.pipeline, option)):
                raise UserError(f"--{option} {why}")

    @property
    def ablations(self) -> Ablations:
        """Which of ICE's parts are left in."""
        return Ablations(self.threshold, self.freezing, self.scheduler)

    @property
    def uniform_ratio(self) -> float:
        """`--ratio`, or its default."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio

    def as_dict(self) -> dict[str, Any]:
        """Plain values, nested as the options are."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def deciding(self) -> dict[str, Any]:
        """The options that decide the result, flat by option name. Resources, names and places are not among them,
        nor is what to do about a corrupt image: a run that one has stopped must be able to go on without it.
        """
        flat = flat_options(self.as_dict()) | {"ratio": None if self.target else self.uniform_ratio}
        return {option: value for option, value in flat.items() if option not in _NOT_DECIDING}


def _is_folder_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable() and "/" not in name and name[0] not in ".~-"


def check_image_size(pixels: int) -> None:
    """Raises UserError: no image is that small, or none that large would fit into memory in batches."""
    if not 4 <= pixels <= _LARGEST_IMAGE:
        raise UserError(f"--image-size {pixels} must be at least 4 pixels and at most {_LARGEST_IMAGE}")


def check_amount(ratio: float | None, target: str | None) -> None:
    """Raises UserError: both are given, or the target is none."""
    if target is not None:
        parse_target(target)
        if ratio is not None:
            raise UserError("--ratio and --target both say how much to prune: give one of them")


_NOT_DECIDING = frozenset(
    {"preset", "storage", "name", "resume", "verbose", "log-to", "data-errors", "wait-for-resources"}
    | {"search.cpus", "search.gpus", "search.max-failures", "search.concurrent"}
    | {"search.store-memory-gb", "search.store-disk-gb"}
    | {"replay.workers", "replay.cpus", "replay.gpus", "replay.max-failures"}
)


def _spaced(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


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


_GROUPS = ("prune", "aap", "imp", "fine_tune", "freeze", "search", "replay")
_DESCRIPTION = TypeAdapter(RunConfig)


def config_from_dict(values: Any, origin: str) -> RunConfig:
    """The description that `RunConfig.as_dict` gave.

    Raises:
        UserError: fields unknown or of the wrong kind, or a group of them missing.
    """
    known = RunConfig().as_dict()
    try:
        _check_fields(values, known)
        for group in _GROUPS:
            _check_fields(values[group], known[group])
        # As JSON: there a tuple is a list and a path is a string, and nothing else is taken for what it is not.
        return _DESCRIPTION.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"]
        raise UserError(f"'{origin}' does not describe a run of this version ({where}: {what})") from error
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"'{origin}' does not describe a run of this version ({error})") from error


def _check_fields(values: Any, known: dict[str, Any]) -> None:
    if not isinstance(values, dict):
        raise TypeError(f"{values!r:.50} is no mapping of options")
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise KeyError(unknown[0])
