"""The pruning-fine-tuning operator in this process, without Ray: for notebooks and scripts."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from ice_ray.data.batches import check_epoch
from ice_ray.data.images import ImageSet, ImageSource, PruningData
from ice_ray.data.residence import bring
from ice_ray.engine.executor import Executor
from ice_ray.engine.network import DenseNetwork
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.pipelines.chance import no_better_than_chance
from ice_ray.pipelines.prepare import prepare
from ice_ray.pipelines.records import StepRecord
from ice_ray.pipelines.registry import build_pipeline, pipeline_kind
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.pruning.criteria import check_criterion
from ice_ray.training.precision import PrecisionChoice, resolve


@dataclass(frozen=True)
class PruningResult:
    """A pruned model and how it came about.

    Attributes:
        model: physically smaller, in eval mode, on the device it was pruned on.
        original_accuracy, accuracy: percent on the decision images, dense and at the end.
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
    ratio: float,
    hyperparameters: Hyperparameters,
    *,
    settings: PruningSettings = PruningSettings(),
    precision: PrecisionChoice = "auto",
    device: torch.device | str | None = None,
) -> PruningResult:
    """Prune a trained classifier (Algorithm 2 of the paper); `model` itself is left as it is.

    Args:
        model: takes float32 images (N, 3, H, W), gives logits (N, classes).
        data: images to fine-tune and to decide on, uint8 (N, H, W, 3).
        ratio: share of each prunable layer's filters to remove, inside (0, 1).
        hyperparameters: the pipeline's, in ICE-Pruning its six.
        settings: criterion, layers, seed, recipe, epochs and so on; the ratio in it is replaced by `ratio`.
        precision: of the arithmetic; `auto` is bf16 where the device has it.
        device: where to work; a GPU where there is one.

    Raises:
        UserError: a ratio that is none or would empty a layer, a model of which nothing may be pruned, or too few
            images for an SGD step.
        TrialFailure: training diverged, or memory did not suffice.

    >>> import numpy as np
    >>> from ice_ray.models.registry import ModelSpec
    >>> from ice_ray import IceHyperparameters, ImageSet, PruningData, prune
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    >>> some = ImageSet.from_numpy(images, np.arange(64) % 10)
    >>> dense = ModelSpec("cifar-resnet8", num_classes=10).build()
    >>> result = prune(dense, PruningData(some, some), 0.5, IceHyperparameters(5, 0.3, 1e-3, 6e-4, 0.1, 50))
    >>> [step.filters_removed for step in result.records]
    [8, 16, 32]
    """
    for images in (data.train, data.train if data.final is None else data.final):
        check_epoch(len(images), processes=1)
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    amounts = dataclasses.replace(settings.amounts, ratio=ratio)
    recipe = dataclasses.replace(settings.recipe, precision=resolve(precision, chosen))
    own = dataclasses.replace(settings, amounts=amounts, recipe=recipe)
    _, selection = DenseNetwork.verified(model, data.train.image_shape, own.selection)
    network = DenseNetwork(model, data.train.image_shape, selection, own.amounts)
    check_criterion(own.criterion, network.units, network.norms, model)
    executor = Executor(network, data, recipe, own.seed, chosen)
    executor.warm_up()
    preparation = prepare(executor, own.removal, own.freeze, own.ablations.freezing and hyperparameters.freezes)
    if not pipeline_kind(own.pipeline).trains_anew:
        _warn_of_chance(preparation.original_accuracy, data.decide)
    pipeline = build_pipeline(own, hyperparameters)
    state = pipeline.begin(executor)
    while not pipeline.is_done(executor, state):
        state = pipeline.advance(executor, state, preparation)
        if state.kept:
            executor.commit(state.snapshot)
            executor.store.keep_only(state.kept)
    seconds = state.pruning_seconds("wall", 1.0)
    state, _ = pipeline.finish(executor, state, preparation)
    module = copy.deepcopy(executor.module(state.snapshot))
    accuracy = executor.accuracy(module, bring(data.decide, chosen))
    return PruningResult(module, preparation.original_accuracy, accuracy, state.records, seconds)


def _warn_of_chance(accuracy: float, decide: ImageSource) -> None:
    doubt = no_better_than_chance(accuracy, decide.labels.cpu().numpy()) if isinstance(decide, ImageSet) else None
    if doubt is not None:
        warnings.warn(
            f"{doubt}: has the model its trained weights, has it seen images of other mean and std (Preprocessing), or "
            "another order of the classes?",
            stacklevel=3,
        )
