"""ICE-Pruning in this process, without Ray: for notebooks and scripts."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from ice_ray.data.batches import check_epoch
from ice_ray.data.images import ImageSet, ImageSource, PruningData
from ice_ray.data.placement import to_device
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.opening import open_module, trained_for_a_step
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.errors import UserError, nearest
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.models.copies import copied
from ice_ray.models.frozen import describe_frozen, freeze
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.layerwise import LayerwiseConfig
from ice_ray.pipelines.records import StepRecord
from ice_ray.pipelines.registry import build_pipeline, pipeline_named
from ice_ray.pruning.criteria import check_criterion
from ice_ray.training.fine_tune import Recipe
from ice_ray.training.precision import Precision, PrecisionChoice, resolve


@dataclass(frozen=True)
class PruningResult:
    """A pruned model and how it came about.

    Attributes:
        model: physically smaller, in eval mode, on the device it was pruned on; the same parameters are frozen
            (requires_grad=False) as in the model that was given.
        original_accuracy, accuracy: percent on the validation images, dense and at the end.
        records: one per pruning step.
        pruning_seconds: PT of eq. 2, on the wall's clock.
    """

    model: nn.Module
    original_accuracy: float
    accuracy: float
    records: tuple[StepRecord, ...]
    pruning_seconds: float


def prune(
    model: nn.Module,
    data: PruningData,
    ratio: float | None = None,
    hyperparameters: Hyperparameters | None = None,
    *,
    pipeline: str = "ice",
    config: PipelineConfig | None = None,
    batch_size: int = 128,
    seed: int = 0,
    precision: PrecisionChoice = "auto",
    device: torch.device | str | None = None,
    **options: Any,
) -> PruningResult:
    """Prune a trained classifier (Algorithm 2 of the paper); `model` itself is left as it is.

    Args:
        model: takes float32 images (N, 3, H, W), gives logits (N, classes). Parameters that are frozen
            (requires_grad=False) keep their values, and layers whose weights are frozen stay whole unless the selection
            includes them; where all are frozen, as for inference, it is as if none were.
        data: images to fine-tune and to decide on, uint8 (N, H, W, 3).
        ratio: share of each prunable layer's filters to remove, inside (0, 1). [default: 0.5, or as `config` has it]
        hyperparameters: the pipeline's. [default: theta never: steps are repaired, none is fine-tuned]
        pipeline: by name, or `package.module:Class`.
        config: the pipeline's `Config`. [default: its defaults]
        batch_size: images per SGD step.
        seed: every random choice comes from it.
        precision: of the arithmetic; `auto` is bf16 where the device has it.
        device: where to work; a GPU where there is one.
        options: fields of `config` in its place: `criterion="l1"`, `repair="none"`,
            `fine_tune=StepFineTuneConfig(distil=False)`.

    Raises:
        UserError: an option that the pipeline has not, a ratio that is none or would empty a layer, data that do not go
            together, too few images for an SGD step, or a model that is none, takes no such images, gives no logits
            for as many classes, or of which nothing may be pruned.
        TrialFailure: training diverged, or memory did not suffice.

    >>> import numpy as np
    >>> from ice_ray.models.registry import ModelSpec
    >>> from ice_ray import ImageSet, PruningData, prune
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    >>> some = ImageSet.from_numpy(images, np.arange(64) % 10)
    >>> dense = ModelSpec("cifar-resnet8", num_classes=10).build()
    >>> result = prune(dense, PruningData(some, some), ratio=0.5)
    >>> [step.filters_removed for step in result.records]
    [8, 16, 32]
    """
    own = _config(pipeline, config, options if ratio is None else options | {"ratio": ratio})
    point = _point(pipeline) if hyperparameters is None else hyperparameters
    method = build_pipeline(pipeline, own, point)
    classes, chosen = _checked(data), _device(device)
    recipe = Recipe(batch_size, own.fine_tune, precision=resolve(precision, chosen))
    network = _opened(model, data.train.image_shape, own, recipe.precision, classes, chosen)
    if network.all_frozen:
        warnings.warn(describe_frozen(network.frozen, True), stacklevel=2)
    if isinstance(own, LayerwiseConfig):
        check_criterion(own.criterion, network.units, network.norms, network.build(torch.device("cpu")))
    executor = TorchExecutor(network, data, recipe, seed, chosen)
    executor.warm_up()
    preparation = method.prepare(executor, method.freezes)
    if not method.trains_anew:
        _warn_of_chance(preparation.original_accuracy, data.validation)
    state = method.begin(executor)
    while not method.is_done(executor, state):
        state = method.advance(executor, state, preparation)
        if state.kept:
            executor.commit(state.snapshot)
            executor.store.keep_only(state.kept)
    seconds = state.pruning_seconds("wall", 1.0)
    state, _ = method.finish(executor, state, preparation)
    module = freeze(copied(executor.module(state.snapshot)), network.frozen)
    network.tie(module)
    accuracy = executor.accuracy(module, to_device(data.validation, chosen))
    return PruningResult(module, preparation.original_accuracy, accuracy, state.records, seconds)


def _config(pipeline: str, config: PipelineConfig | None, options: dict[str, Any]) -> PipelineConfig:
    """The pipeline's options, those given by keyword in their place."""
    kind = pipeline_named(pipeline).Config
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            raise UserError(f"pipeline {pipeline} has no option '{name}' ({nearest(name, known)})")
    base = kind() if config is None else config
    if not isinstance(base, kind):
        raise UserError(f"config of pipeline {pipeline} must be of {kind.__name__}, not {type(base).__name__}")
    values = {name: getattr(base, name) for name in known} | options
    try:
        found: PipelineConfig = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise UserError(f"{name}={values[name]!r:.80}: {first['msg']}") from error
    return found


def _point(pipeline: str) -> Hyperparameters:
    kind = pipeline_named(pipeline).Hyperparameters
    needed = [each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]
    if needed:
        raise UserError(f"pipeline {pipeline} needs hyperparameters: {kind.__name__}({', '.join(needed)})")
    return kind()


def _opened(
    model: nn.Module,
    shape: tuple[int, int, int],
    config: PipelineConfig,
    precision: Precision,
    classes: int | None,
    device: torch.device,
) -> DenseNetwork:
    """The network, traced, once copies of it have borne what it will go through."""
    amounts = config.amounts
    opening = open_module(model, shape, config.prune.selection, classes)
    amounts.check(opening.network.steps)
    if device.type == "cpu":
        widths = {unit.layer: unit.filters - amounts.removed(unit) for unit in opening.network.units}
        opening = trained_for_a_step(opening, widths, precision)
    if opening.note is not None:
        warnings.warn(opening.note, stacklevel=3)
    return DenseNetwork(opening.module, shape, opening.selection, amounts, opening.network.layout)


def _device(asked: torch.device | str | None) -> torch.device:
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UserError(f"device '{asked}' is none that torch knows: cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{asked}': torch finds no GPU here")
    return device


def _checked(data: PruningData) -> int | None:
    """How many classes the labels tell apart, at the least; None where they are not at hand.

    Raises:
        UserError: no images, images of several sizes, or labels that are none.
    """
    if not isinstance(data, PruningData):
        raise UserError(f"data is of type {type(data).__name__}: give PruningData(train, decide), two ImageSets")
    named = {"train": data.train, "validation": data.validation, "final": data.final}
    roles = {name: images for name, images in named.items() if images is not None}
    for name, images in roles.items():
        if not len(images) or (name == "validation" and len(images) < 2):
            raise UserError(f"data.{name} holds {len(images)} images: at least 2 are needed")
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
            stacklevel=3,
        )
