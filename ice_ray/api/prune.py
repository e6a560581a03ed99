"""ICE-Pruning in this process, without Ray: for notebooks and scripts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ice_ray.api.arguments import device_of, found_for, keywords_of, pipeline_config, target_of, whole
from ice_ray.api.data import given_data
from ice_ray.api.result import Result
from ice_ray.data.batches import check_epoch
from ice_ray.data.images import ImageSet, ImageSource, Preprocessing, PruningData
from ice_ray.data.placement import to_device
from ice_ray.engine.config import Target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.opening import Opening, open_module, trained_for_a_step
from ice_ray.engine.sizes import sizes
from ice_ray.engine.target import small_part
from ice_ray.engine.torch_executor import TorchExecutor
from ice_ray.environment import environment
from ice_ray.errors import UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.models.answers import logits_of
from ice_ray.models.copies import copied
from ice_ray.models.frozen import describe_frozen, freeze
from ice_ray.models.kinds import plain_module
from ice_ray.models.registry import name_of
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.harm import harms_of
from ice_ray.pipelines.layerwise import LayerwiseConfig
from ice_ray.pipelines.records import StepRecord
from ice_ray.pipelines.registry import build_pipeline, pipeline_named
from ice_ray.progress import progress_bar
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
            width that costs least (option `allocate`).
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
        own, amounts = dataclasses.replace(own, ratio=found.ratio), found.on(amounts)
        method = build_pipeline(pipeline, own, point)
    network = _network(opening, amounts, recipe.precision, chosen)
    if network.all_frozen:
        warnings.warn(describe_frozen(network.frozen, True), stacklevel=3)
    if isinstance(own, LayerwiseConfig):
        check_criterion(own.criterion, network.units, network.norms, network.build(_CPU))
    executor = TorchExecutor(network, data, recipe, seed, chosen)
    with _Bar(method.length(len(network.steps)) + bool(point.final_epochs), progress) as bar:
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
            bar.took(state.records[-1])
            if callback is not None:
                callback(state.records[-1])
    seconds = state.pruning_seconds("wall", 1.0)
    state, _ = method.finish(executor, state, preparation)
    module = freeze(copied(executor.module(state.snapshot)), network.frozen)
    kept = executor.filters_left(state.snapshot)
    network.tie(module)
    accuracy = executor.accuracy(module, to_device(data.validation, chosen))
    for harm in harms_of(state.records, type(point), own.final_training, accuracy, len(data.validation)):
        warnings.warn(str(harm), stacklevel=3)
    dense = network.build(_CPU)
    description = {
        "builder": {"name": name_of(model), "num_classes": _classes(dense, data.train.image_shape)},
        "image_shape": list(data.train.image_shape),
        "widths": {layer: len(filters) for layer, filters in kept.items()},
        "kept": {layer: list(filters) for layer, filters in kept.items()},
        "frozen": list(network.frozen),
        "layout": network.layout,
        "metrics": {
            "dense": _figures(network, dense, preparation.original_accuracy, data.validation),
            "pruned": _figures(network, module, accuracy, data.validation),
            "device": str(chosen),
            "precision": recipe.precision,
        },
        "preprocessing": data.preprocessing.as_dict(),
        "hyperparameters": point.plain(),
        "config": {
            "pipeline": pipeline,
            "target": target,
            "found": None if found is None else found.words,
            "batch_size": batch_size,
            "seed": seed,
            **dataclasses.asdict(own),
        },
        **environment(),
    }
    return Result(module, state.records, seconds, description)


class _Bar:
    """The steps as they are done: which layers, the accuracy after them, and the drop.

    Args:
        total: steps, at the most.
        shown: without it where somebody looks.
    """

    def __init__(self, total: int, shown: bool | None) -> None:
        self._bar = progress_bar(total, "preparing", "step", shown)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def took(self, record: StepRecord) -> None:
        self._bar.set_description(record.layers, refresh=False)
        self._bar.set_postfix(accuracy=f"{record.accuracy:.2f}%", drop=f"{record.drop:.2f}", refresh=False)
        self._bar.update()


def _wanted(target: str | None, ratio: float | None, pipeline: str) -> tuple[Target, ...] | None:
    """What is to be left, where a target says so."""
    if not isinstance(pipeline, str):
        raise UserError(f"pipeline={pipeline!r:.80} must be a name, as 'ice' or 'package.module:Class'")
    wanted = target_of(target, ratio)
    if not pipeline_named(pipeline).takes_target and wanted is not None:
        raise UserError(f"target finds a share for every layer alike; pipeline {pipeline} takes ratio")
    return wanted


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


def _network(opening: Opening, amounts: Amounts, precision: Precision, device: torch.device) -> DenseNetwork:
    """The network, once copies of it have borne what it will go through."""
    amounts.check(opening.network.steps)
    if device.type == "cpu":
        widths = {unit.layer: unit.filters - amounts.removed(unit) for unit in opening.network.units}
        opening = trained_for_a_step(opening, widths, precision)
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
            stacklevel=4,
        )


def _figures(network: DenseNetwork, model: nn.Module, accuracy: float, validation: ImageSource) -> dict[str, Any]:
    """Of one form of the network, under the names that a run's assessment has for them."""
    return {"validation_accuracy": accuracy, "validation_images": len(validation), **sizes(network, model)}


@torch.inference_mode()
def _classes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    return logits_of(model(torch.zeros(2, *image_shape))).shape[1]
