"""ICE-Pruning in this process, without Ray: for notebooks and scripts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.api.arguments import device_of, found_for, keywords_of, pipeline_config, rungs_of, whole
from ice_ray.api.data import given_data
from ice_ray.api.result import Result
from ice_ray.api.rungs import Rung, Walk
from ice_ray.data.batches import check_epoch
from ice_ray.data.images import ImageSet, ImageSource, Preprocessing, PruningData
from ice_ray.engine import config as engine
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.opening import Opening, open_module, trained_for_a_step
from ice_ray.engine.target import small_part
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.models.answers import logits_of
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.kinds import plain_module
from ice_ray.models.registry import name_of
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.layerwise import LayerwiseConfig
from ice_ray.pipelines.records import Preparation, StepRecord
from ice_ray.pipelines.registry import build_pipeline, pipeline_named
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.criteria import check_criterion
from ice_ray.torch_defaults import usual_defaults
from ice_ray.training.config import Precision, PrecisionChoice
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.precision import resolve
from ice_ray.wording import counted

_CPU = torch.device("cpu")


@usual_defaults()  # a frame more for warnings
def prune(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    ratio: float | None = None,
    target: str | None = None,
    hyperparameters: Hyperparameters | None = None,
    pipeline: str = "ice",
    config: PipelineConfig | None = None,
    batch_size: int = 128,
    seed: int = 0,
    precision: PrecisionChoice = "auto",
    device: torch.device | str | int | None = None,
    preprocessing: Preprocessing | None = None,
    progress: bool | None = None,
    callback: Callable[[StepRecord], object] | None = None,
    rungs_to: str | Path | StoragePath | None = None,
    **options: Any,
) -> Result:
    """Prune a trained classifier (Algorithm 2 of the paper) in this process; `model` itself is left as it is.

    The same data, settings and seed give the same bits on the same machine.

    Args:
        model: takes float32 images (N, C, H, W), gives logits (N, classes). Parameters that are frozen
            (requires_grad=False) keep their values, and layers whose weights are frozen stay whole unless the selection
            includes them; where all are frozen, as for inference, it is as if none were.
        train: images to fine-tune on: a torch `DataLoader` or `Dataset`, a pair (images, labels) of tensors or arrays,
            a `ray.data.Dataset`, or an `ImageSet`. Floats (N, C, H, W) are normalised already and taken as they come;
            uint8 is normalised by `preprocessing`. Or, without `val`, a `PruningData`, or a name as the option `--data`
            takes it. `ice_ray.given_data` says what is made of each.
        val: images that the model was not trained on, in any of these forms: what a step has cost is measured on them.
        ratio: share of each prunable layer's filters to remove, inside (0, 1). [default: 0.5, or as `config` has it]
        target: in its place, what to keep of the dense model: "macs=0.5", "params=0.4", "latency=0.6" (PyTorch's) or
            "onnx-latency=0.6" (ONNX Runtime's, on one thread), or several: "macs=0.5 params=0.6". Each layer keeps the
            width that costs least (option `allocate`). With several shares, from the top down, "macs=0.8,0.6,0.4", it
            is a ladder: each rung goes on from what the one above has come to, with its retraining and final epochs.
            The result is the last rung's; `Result.rungs` has all.
        hyperparameters: the pipeline's. [default: theta never: steps are repaired, none is fine-tuned]
        pipeline: by name, or `package.module:Class`.
        config: the pipeline's `Config`. [default: its defaults]
        batch_size: images per SGD step, at least 2.
        seed: every random choice comes from it.
        precision: of the arithmetic; `auto` is bf16 where the device has it.
        device: where to work; a GPU where there is one.
        preprocessing: mean and std of uint8 images, a value per channel (floats go with neither), and padding and flips
            while training.
        progress: whether a bar shows the steps, and one before them the reading of images, where that takes more than a
            second. [default: in a notebook, and where standard error is a terminal]
        callback: called with its record after every step; what it raises ends the pruning.
        rungs_to: folder (or address) that every rung of a target is saved to as soon as it is done, under the name of
            its own target (`macs=0.8`): those that are done outlast an interruption.
        options: fields of `config` in its place: `criterion="l1"`, `repair="none"`,
            `fine_tune=StepFineTuneConfig(distil=False)`.

    Raises:
        UserError: an argument that is none, in one line that names it; a ratio that would empty a layer, a target out
            of reach, data that do not go together, too few images for an SGD step, or a model that takes no such
            images, gives no logits for as many classes, or of which nothing may be pruned.
        TrialFailure: training diverged, or memory did not suffice.

    >>> import torch
    >>> from torch import nn
    >>> import ice_ray
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    ...         self.head = nn.Linear(16, 2)
    ...     def forward(self, images):
    ...         return self.head(self.features(images).mean((2, 3)))
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> images, labels = torch.randn(64, 1, 28, 20), torch.ones(64, dtype=torch.int64)
    >>> loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    >>> result = ice_ray.prune(Net(), loader, (images, labels), target="macs=0.5")
    >>> type(result.model).__name__, result.macs <= 0.5 * result.original_macs
    ('Net', True)
    """
    wanted = _wanted(target, ratio, pipeline)
    given = options if ratio is None else options | {"ratio": ratio}
    own = pipeline_config(pipeline, config, given, keywords_of(prune))
    point = _point(pipeline, hyperparameters)
    method = build_pipeline(pipeline, own, point)
    _check_words(progress, callback)
    kept_in = _folder_of(rungs_to, wanted)
    batch_size, seed = whole("batch_size", batch_size), whole("seed", seed)
    chosen = device_of(device)
    recipe = Recipe(batch_size, own.fine_tune, precision=resolve(precision, chosen))
    plain_module(model)  # what is no model is said before any image is read
    data = given_data(train, val, preprocessing=preprocessing, seed=seed, progress=progress)
    classes = _checked(data)
    opening = open_module(model, data.train.image_shape, own.prune.selection, classes)
    amounts = own.amounts
    if method.takes_target and (objection := small_part(opening.network)) is not None:
        warnings.warn(objection, stacklevel=3)
    found = None
    if wanted is not None:
        images = (data, seed) if own.allocates else None
        found = found_for(wanted, opening.network, amounts, chosen, recipe.precision, images)
    network = _network(opening, amounts if found is None else found.on(amounts), recipe.precision, chosen, method)
    if network.all_frozen:
        warnings.warn(describe_frozen(network.frozen, True), stacklevel=3)
    if isinstance(own, LayerwiseConfig):
        check_criterion(own.criterion, network.units, network.norms, network.build(_CPU))
    if found is None or wanted is None:
        rungs = [Rung(method, network, None)]
    else:
        is_ladder = len(wanted) > 1
        as_rungs = [own.on_rung(min(one.share for one in targets)) if is_ladder else own for targets in wanted]
        rungs = [
            Rung(
                build_pipeline(pipeline, dataclasses.replace(of_rung, ratio=each.ratio), point),
                network.on_rung(each.on_rung(amounts)),
                " ".join(map(str, targets)),
                each.words,
            )
            for each, targets, of_rung in zip(found.rungs, wanted, as_rungs, strict=True)
        ]
    facts = {
        "builder": {"name": name_of(model), "num_classes": _classes(network.build(_CPU), data.train.image_shape)},
        "image_shape": list(data.train.image_shape),
        "preprocessing": data.preprocessing.as_dict(),
    }
    given = {"pipeline": pipeline, "batch_size": batch_size, "seed": seed}
    walk = Walk(data, recipe, seed, chosen, callback, facts, given)

    def prepared(preparation: Preparation) -> None:
        if not method.trains_anew:
            _warn_of_chance(preparation.original_accuracy, data.validation)

    for result, harms in walk.down(rungs, progress, prepared):
        for harm in harms:
            warnings.warn(str(harm), stacklevel=3)
        if kept_in is not None:
            result.save(kept_in / result.name)
    return result


def _wanted(target: str | None, ratio: float | None, pipeline: str) -> tuple[engine.Rung, ...] | None:
    """What is to be left, where a target says so."""
    if not isinstance(pipeline, str):
        raise UserError(f"pipeline={pipeline!r:.80} must be a name, as 'ice' or 'package.module:Class'")
    wanted = rungs_of(target, ratio)
    if not pipeline_named(pipeline).takes_target and wanted is not None:
        raise UserError(f"target finds a share for every layer alike; pipeline {pipeline} takes ratio")
    if wanted is not None and len(wanted) > 1 and pipeline_named(pipeline).trains_anew:
        raise UserError(f"target '{target}' is a ladder, and pipeline {pipeline} trains anew: give it one rung")
    return wanted


def _folder_of(rungs_to: str | Path | StoragePath | None, wanted: object) -> StoragePath | None:
    """Where rungs are saved, if anywhere."""
    if rungs_to is None:
        return None
    if wanted is None:
        raise UserError("rungs_to saves the rungs of a target: give one, as target='macs=0.8,0.6,0.4'")
    own = storage_path(rungs_to)
    own.check_writable("rungs_to")
    return own


def _point(pipeline: str, given: Hyperparameters | None) -> Hyperparameters:
    kind = pipeline_named(pipeline).Hyperparameters
    if given is not None and not isinstance(given, kind):
        raise UserError(f"hyperparameters of pipeline {pipeline} must be {kind.__name__}, not {type(given).__name__}")
    if given is not None:
        return given
    needed = [name for name in kind.names() if name not in kind.defaults()]
    if needed:
        raise UserError(f"pipeline {pipeline} needs hyperparameters: {kind.__name__}({', '.join(needed)})")
    try:
        return kind()
    except UserError as error:  # its defaults are none that it can work with
        shown = ", ".join(f"{name}=..." for name in kind.names())
        raise UserError(f"pipeline {pipeline} needs hyperparameters={kind.__name__}({shown}): {error}") from error


def _check_words(progress: object, callback: object) -> None:
    if progress not in (True, False, None) or isinstance(progress, (int, float)) != isinstance(progress, bool):
        raise UserError(f"progress={progress!r:.80} must be True, False or None")
    if callback is not None and not callable(callback):
        raise UserError(f"callback={callback!r:.80} must be a function of one step's record")


def _network(
    opening: Opening, amounts: Amounts, precision: Precision, device: torch.device, method: Pipeline
) -> DenseNetwork:
    """The network, once copies of it have borne what it will go through."""
    amounts.check(opening.network.steps)
    if device.type == "cpu":
        widths = {unit.layer: unit.filters - amounts.removed(unit) for unit in opening.network.units}
        opening = trained_for_a_step(opening, widths, precision, is_certain=method.takes_target)
    if opening.note is not None:
        warnings.warn(opening.note, stacklevel=4)
    own = opening.network
    return DenseNetwork(opening.module, own.image_shape, opening.selection, amounts, own.layout)


def _checked(data: PruningData) -> int | None:
    """How many classes the labels tell apart, at the least; None where they are not at hand.

    Raises:
        UserError: no images, images of several sizes, or labels that are none.
    """
    named = {"train": data.train, "validation": data.validation, "final": data.final}
    roles = {name: images for name, images in named.items() if images is not None}
    for name, images in roles.items():
        if not len(images) or (name == "validation" and len(images) < 2):
            raise UserError(f"data.{name} holds {counted(len(images), 'image')}: at least 2 are needed")
        if name != "validation":
            check_epoch(len(images), processes=1, mend=f"give data.{name} more")
        if images.image_shape != data.train.image_shape:
            raise UserError(
                f"images of data.{name} are {images.image_shape}, those of data.train {data.train.image_shape}"
            )
    labels = {name: images.labels for name, images in roles.items() if isinstance(images, ImageSet)}
    for name, each in labels.items():
        if int(each.min()) < 0:
            raise UserError(f"data.{name} has the label {int(each.min())}: classes count from 0")
    return 1 + max(int(each.max()) for each in labels.values()) if labels else None


def _warn_of_chance(accuracy: float, validation: ImageSource) -> None:
    doubt = (
        no_better_than_chance(accuracy, validation.labels.cpu().numpy()) if isinstance(validation, ImageSet) else None
    )
    if doubt is not None:
        warnings.warn(
            f"{doubt}: has the model its trained weights, has it seen images of other mean and std (Preprocessing), or "
            "another order of the classes?",
            stacklevel=6,
        )


@torch.inference_mode()
def _classes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    return logits_of(model(torch.zeros(2, *image_shape))).shape[1]
