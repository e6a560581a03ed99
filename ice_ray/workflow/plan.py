"""A run's description checked against its data and model, before Ray starts and before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ice_ray.config.run import RunConfig
from ice_ray.data.images import Preprocessing
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import DataError, UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.ingest.datasets import Dataset, open_dataset
from ice_ray.ingest.roles import Roles, Rows, assign_roles, subsample
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import fit_weights, load_state_dict
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.pruning.criteria import criterion_named
from ice_ray.pruning.units import check_ratio
from ice_ray.search.space import load_space
from ice_ray.training.fine_tune import Recipe

_LARGEST_SMALL_IMAGE = 32
_DEFAULT_SUBSAMPLE, _DIGITS_SUBSAMPLE = 0.02, 0.5


@dataclass(frozen=True)
class Plan:
    """What will be run.

    Attributes:
        weights: the dense model's; None where it is to be trained first.
        points: the grid points to try, in order.
        steps: pruning steps the model has.
    """

    config: RunConfig
    dataset: Dataset
    roles: Roles
    spec: ModelSpec
    weights: dict[str, Tensor] | None
    points: tuple[Hyperparameters, ...]
    preprocessing: Preprocessing
    image_shape: tuple[int, int, int]
    steps: int

    @property
    def settings(self) -> PruningSettings:
        """What every process is told of how to prune; precision is resolved on its device."""
        config = self.config
        return PruningSettings(
            ratio=config.ratio,
            criterion=config.criterion,
            seed=config.seed,
            recipe=Recipe(batch_size=config.batch_size, distil=config.distil),
            counting=config.alpha,
            learning_rate_tolerance=config.search.lr_tolerance,
            freeze=config.freeze,
        )

    def search_rows(self) -> tuple[Rows, Rows]:
        """Stage 1's images: a stratified subsample to fine-tune on, and those that decide."""
        search = self.config.search
        share = search.subsample or (_DIGITS_SUBSAMPLE if self.config.data == "digits" else _DEFAULT_SUBSAMPLE)
        count = max(2, round(share * len(self.roles.train)))
        seed = self.config.seed
        return (
            subsample(self.dataset, self.roles.train, count, seed, "search train"),
            subsample(self.dataset, self.roles.decide, search.eval_images, seed, "search decide"),
        )

    def replay_rows(self) -> tuple[Rows, Rows]:
        """Stage 2's images: the training images, or the share asked for, and all that decide."""
        count = max(2, round(self.config.replay.subsample * len(self.roles.train)))
        return subsample(self.dataset, self.roles.train, count, self.config.seed, "replay train"), self.roles.decide


def make_plan(config: RunConfig, dense_weights: Path | None = None) -> Plan:
    """Check everything that can be checked without a cluster.

    Args:
        dense_weights: weights that an earlier part of this run trained, in place of `config.weights`.

    Raises:
        UserError: what is wrong and how to mend it.
    """
    criterion_named(config.criterion)
    dataset = open_dataset(config.data, config.image_size)
    points = load_space(config.space or dataset.default_space).sample(config.search.trials, config.seed)
    spec = ModelSpec(config.model, dataset.classes)
    module = spec.build()
    path = config.weights or dense_weights
    if path is not None:
        fit_weights(module, load_state_dict(path), str(path))
    elif config.data != "digits" and not spec.is_users_own:
        raise UserError("pruning starts from a trained model: give its weights with --weights PATH")
    roles = assign_roles(dataset, config.decide_on, config.seed)
    shape = _image_shape(dataset, config)
    try:
        network = DenseNetwork(module, shape)
    except UserError:
        raise
    except Exception as error:  # the user's module may raise anything
        raise UserError(
            f"model '{config.model}' does not take an image of {shape[2]}x{shape[1]} pixels and 3 channels "
            f"({type(error).__name__}: {error})"
        ) from error
    _check_outputs(network, dataset.classes, config.model)
    check_ratio(config.ratio, network.steps)
    trained = path is not None or spec.is_users_own
    return Plan(
        config=config,
        dataset=dataset,
        roles=roles,
        spec=spec,
        weights=module.state_dict() if trained else None,
        points=points,
        preprocessing=_preprocessing(dataset, config, shape),
        image_shape=shape,
        steps=len(network.steps),
    )


def _check_outputs(network: DenseNetwork, classes: int, name: str) -> None:
    """The model must tell the data's classes apart: logits (N, at least `classes`)."""
    with torch.no_grad():
        logits = network.build(torch.device("cpu"))(torch.zeros(1, *network.image_shape))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < classes:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"model '{name}' gives {shape} for one image; the data needs logits of {classes} classes")


def _image_shape(dataset: Dataset, config: RunConfig) -> tuple[int, int, int]:
    """Of the first training image that can be decoded; with `--data-errors stop` the very first must."""
    first = ""
    for row in dataset.read("train", np.arange(min(100, len(dataset.labels["train"])))):
        if row.pixels is not None:
            height, width, channels = row.pixels.shape
            return channels, height, width
        first = first or row.error
        if config.data_errors == "stop":
            raise DataError(f"{row.error}; mend or remove it, or go on without: --data-errors skip")
    raise DataError(f"none of the first training images can be decoded: {first}")


def _preprocessing(dataset: Dataset, config: RunConfig, shape: tuple[int, int, int]) -> Preprocessing:
    """Crops and flips for small images, as the paper's CIFAR recipe has them, none for larger ones."""
    pads, flips = dataset.pad, dataset.flip
    if config.augment == "none" or (config.augment == "auto" and max(shape[1:]) > _LARGEST_SMALL_IMAGE):
        pads, flips = 0, False
    elif config.augment == "crop-flip":
        pads, flips = max(1, shape[1] // 8), True
    return Preprocessing(config.mean, config.std, pads, flips)
