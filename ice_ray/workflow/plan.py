"""A run's description checked against its data and model, before Ray starts and before anything is written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ice_ray.address import StoragePath
from ice_ray.config.run import RunConfig
from ice_ray.data.batches import check_epoch
from ice_ray.data.config import IMAGENET_MEAN, IMAGENET_STD
from ice_ray.data.images import Preprocessing, PruningData
from ice_ray.engine.allocation import find
from ice_ray.engine.config import Found, parse_target
from ice_ray.engine.network import DenseNetwork
from ice_ray.engine.opening import Opening, open_module, trained_for_a_step
from ice_ray.engine.target import small_part
from ice_ray.engine.width_losses import IMAGES
from ice_ray.errors import DataError, UserError
from ice_ray.hyperparameters import Hyperparameters
from ice_ray.ingest.datasets import Dataset, open_dataset
from ice_ray.ingest.in_process import read_few
from ice_ray.ingest.roles import Roles, Rows, assign_roles, subsample
from ice_ray.models.answers import logits_of
from ice_ray.models.copies import copied, reinitialise
from ice_ray.models.frozen import describe_frozen
from ice_ray.models.layout import Layout, laid_out
from ice_ray.models.registry import ModelSpec
from ice_ray.models.weights import fit_weights, read_weights
from ice_ray.observe.terminal import warn
from ice_ray.pipelines.base import Pipeline, PipelineConfig
from ice_ray.pipelines.layerwise import LayerwiseConfig
from ice_ray.pipelines.registry import build_pipeline, pipeline_named
from ice_ray.pipelines.settings import PruningSettings
from ice_ray.pruning.amounts import Amounts
from ice_ray.pruning.criteria import check_criterion, criterion_named
from ice_ray.pruning.selection import Selection
from ice_ray.training.config import PrecisionChoice
from ice_ray.training.precision import resolve
from ice_ray.trials.proposals import Proposals, propose
from ice_ray.trials.space import Space, load_space
from ice_ray.workflow.given import NAMED, Given
from ice_ray.workflow.waiting import told_of

# With these a ranking of trials by drop carries over to all data: benchmarks/results/transfer.md.
_SEARCH_BATCH = 32
_DIGITS_SUBSAMPLE = 0.5
UNTRAINED = "pruning starts from a trained model: give its weights with --weights PATH"


@dataclass(frozen=True)
class Plan:
    """What will be run.

    Attributes:
        config: with the ratio that a target led to.
        weights: the dense model's; None where it is to be trained first.
        space: the hyperparameters' grid, or what spans their box.
        selection: which layers are pruned.
        layout: of the network in memory.
        found: what `--target` led to; None without it.
        steps: pruning steps the model has.
        rung_steps: of a ladder, those of every rung.
        rung: of a ladder, which of its rungs this is the plan of, from 0; None for the whole.
        frozen: parameters, by name, that the model is built with as fixed (requires_grad=False).
        frozen_note: what comes of them, for people; empty where there are none.
        given: as objects.
    """

    config: RunConfig[Any]
    dataset: Dataset
    roles: Roles
    spec: ModelSpec
    weights: dict[str, Tensor] | None
    space: Space
    preprocessing: Preprocessing
    image_shape: tuple[int, int, int]
    selection: Selection
    layout: Layout
    found: Found | None
    steps: int
    rung_steps: tuple[int, ...] = ()
    rung: int | None = None
    frozen: tuple[str, ...] = ()
    frozen_note: str = ""
    given: Given = NAMED

    @property
    def search_settings(self) -> PruningSettings:
        """What every trial is told of how to prune; precision is resolved on its device."""
        return self._settings(self.config.options, self.config.search.batch_size or self._usual_search_batch)

    @property
    def replay_settings(self) -> PruningSettings:
        """The same for stage 2."""
        return self._settings(self.config.options.for_replay(), self.config.batch_size)

    @property
    def _usual_search_batch(self) -> int:
        # With as many images as the replay trials take its steps, and what rate they find is right for its batch alone.
        if self._search_images >= self._count(self.config.replay.subsample):
            return self.config.batch_size
        return min(_SEARCH_BATCH, self.config.batch_size)

    @property
    def _search_images(self) -> int:
        usual = _DIGITS_SUBSAMPLE if self.config.data == "digits" else self.pipeline.search_share
        return self._count(self.config.search.subsample or usual)

    def _count(self, share: float) -> int:
        return max(2, round(share * len(self.roles.train)))

    def _settings(self, options: PipelineConfig, batch_size: int) -> PruningSettings:
        config, rung = self.config, None
        allocation = self.found.allocation if self.found is not None else None
        if self.found is not None and self.rung is not None:
            rung = self.found.rungs[self.rung].on_rung(options.amounts)
            options = dataclasses.replace(options, ratio=self.found.ratio)
        return PruningSettings(
            config.pipeline, options, batch_size, config.seed, self.selection, self.layout, allocation, rung
        )

    @property
    def reached(self) -> Found | None:
        """What the target has led to; of a rung's plan, its own."""
        return self.found if self.found is None or self.rung is None else self.found.rungs[self.rung]

    def rungs(self) -> tuple[Plan, ...]:
        """Of a ladder the plan of every rung, from the top; else this one alone."""
        if self.found is None or self.config.target is None or self.found.above is None:
            return (self,)
        return tuple(
            dataclasses.replace(
                self,
                config=dataclasses.replace(
                    self.config,
                    target=" ".join(map(str, targets)),
                    options=dataclasses.replace(
                        self.config.options.on_rung(min(target.share for target in targets)), ratio=found.ratio
                    ),
                ),
                steps=steps,
                rung=number,
            )
            for number, (found, targets, steps) in enumerate(
                zip(self.found.rungs, parse_target(self.config.target), self.rung_steps, strict=True)
            )
        )

    @property
    def pipeline(self) -> type[Pipeline]:
        """What decides."""
        return pipeline_named(self.config.pipeline)

    @cached_property
    def proposals(self) -> Proposals:
        """What stage 1 tries.

        Raises:
            UserError: the options ask for what cannot be.
        """
        return propose(self.space, self.config.search, self.config.seed)

    def length_with(self, point: Hyperparameters) -> int:
        """Rounds of a trial with these hyperparameters, at most."""
        return build_pipeline(self.config.pipeline, self.config.options, point).length(self.steps)

    @property
    def probes(self) -> bool:
        """Whether anything freezes, and so the probe is needed."""
        return self.config.options.freezes and self.proposals.freezes

    def search_rows(self) -> tuple[Rows, Rows]:
        """Stage 1's images: a stratified subsample to fine-tune on, and those that decide."""
        eval_images, seed = self.config.search.eval_images, self.config.seed
        return (
            subsample(self.dataset, self.roles.train, self._search_images, seed, "search train"),
            subsample(self.dataset, self.roles.validation, eval_images, seed, "search decide"),
        )

    def replay_rows(self) -> tuple[Rows, Rows]:
        """Stage 2's images: the training images, or the share asked for, and all that decide."""
        return self._replay_train(self.config.replay.subsample), self.roles.validation

    def final_rows(self) -> Rows | None:
        """The images of stage 2's final epochs, where they are others than those of its steps."""
        own, usual = self.config.options.final_training, self.config.replay.subsample
        return None if own.subsample in (None, usual) or not own.epochs else self._replay_train(own.subsample)

    def check_epochs(self, workers: int) -> None:
        """Whether every training of either stage has SGD steps to make.

        Args:
            workers: stage 2's processes.

        Raises:
            UserError: one has none, with the options that mend it.
        """
        final = self.config.options.final_training
        asked = [("--search.subsample", 1, self._search_images)]
        asked.append(("--replay.subsample", workers, self._count(self.config.replay.subsample)))
        if final.subsample is not None and final.epochs:
            asked.append(("--final.subsample", workers, self._count(final.subsample)))
        for option, processes, count in asked:
            fewer = " or fewer --replay.workers" if processes > 1 else ""
            mend = f"give it more images (a larger {option}, where that is below 1){fewer}"
            check_epoch(min(count, len(self.roles.train)), processes, mend)

    def _replay_train(self, share: float) -> Rows:
        return subsample(self.dataset, self.roles.train, self._count(share), self.config.seed, "replay train")


def make_plan(
    config: RunConfig[Any],
    dense_weights: StoragePath | None = None,
    found: Found | None = None,
    given: Given = NAMED,
) -> Plan:
    """Check everything that can be checked without a cluster.

    Args:
        dense_weights: weights that an earlier part of this run trained, in place of `config.weights`.
        found: what an earlier part of this run found for `config.target`.
        given: what is given as an object, in the place of what the config names.

    Raises:
        UserError: what is wrong and how to mend it.
    """
    options, kind = config.options, pipeline_named(config.pipeline)
    criterion = options.criterion if isinstance(options, LayerwiseConfig) else None
    if criterion is not None:
        criterion_named(criterion)
    if config.target is not None and not kind.takes_target:
        raise UserError(f"--target finds a share for every layer alike; --pipeline {config.pipeline} takes --ratio")
    if kind.trains_anew and config.target is not None and len(parse_target(config.target)) > 1:
        raise UserError(f"--target {config.target} is a ladder, and --pipeline {config.pipeline} trains anew")
    dataset = open_dataset(config.data, config.image_size) if given.data is None else given.data
    space = load_space(config.space or "default", config.pipeline).fixing(options.idle_hyperparameters)
    spec = ModelSpec(config.model, dataset.classes, given.model)
    module = spec.build()
    path = config.weights or dense_weights
    if path is not None:
        load_weights(module, path)
    elif config.data != "digits" and not spec.is_users_own:
        raise UserError(UNTRAINED)
    if kind.trains_anew:
        reinitialise(copied(module), ("check",))
    roles = assign_roles(dataset, config.decide_on, config.seed)
    shape = image_shape_of(dataset, config)
    opening = _opened(module, config.model, shape, options.prune.selection, dataset.classes)
    amounts = options.amounts
    if kind.takes_target and (objection := small_part(opening.network)) is not None:
        warn(objection)
    if config.target is not None:
        calibration = None
        if path is not None or spec.is_users_own:  # else nothing can be said of its answers yet
            calibration = calibration_of(dataset, roles, config, given, shape, opening.network.layout)
        found = found or find_for(config.target, opening.network, amounts, config.precision, calibration)
        config = dataclasses.replace(config, options=dataclasses.replace(options, ratio=found.ratio))
        amounts = found.on(amounts)
    amounts.check(opening.network.steps)
    opening = _trained_for_a_step(opening, amounts, config)
    network, selection = opening.network, opening.selection
    if given.model is not None:  # a name says how many classes it is to be built for, an object has its own
        spec = dataclasses.replace(spec, num_classes=_classes(network, shape))
    steps = amounts.losing(network.steps)
    if criterion is not None:
        check_criterion(criterion, [unit for step in steps for unit in step.units], network.norms, module)
    trained = path is not None or spec.is_users_own
    plan = Plan(
        config=config,
        dataset=dataset,
        roles=roles,
        spec=spec,
        weights=module.state_dict() if trained else None,
        space=space,
        preprocessing=_preprocessing(dataset, config, given, shape, network.layout),
        image_shape=shape,
        selection=selection,
        layout=network.layout,
        found=found,
        steps=len(steps),
        rung_steps=() if found is None else _rung_steps(found, options.amounts, network),
        frozen=network.frozen,
        frozen_note=describe_frozen(network.frozen, network.all_frozen) if network.frozen else "",
        given=given,
    )
    plan.check_epochs(config.replay.workers or 1)
    for point in space.points():  # which not all go with all options
        build_pipeline(config.pipeline, config.options, point)
    return plan


def _rung_steps(found: Found, amounts: Amounts, network: DenseNetwork) -> tuple[int, ...]:
    return tuple(len(rung.on_rung(amounts).losing(network.steps)) for rung in found.rungs)


def load_weights(module: nn.Module, path: Path | StoragePath) -> None:
    """Read trained weights into a module; what should be known of them is said.

    Raises:
        UserError: they are none, or not the model's.
    """
    held = read_weights(path)
    for note in (*held.notes, *fit_weights(module, held.tensors, str(path))):
        warn(note)


def open_network(
    module: nn.Module, name: str, shape: tuple[int, int, int], selection: Selection, classes: int | None = None
) -> tuple[DenseNetwork, Selection]:
    """The network, traced, and the selection without layers whose removal goes wrong; what should be known is said.

    Args:
        classes: that it is to tell apart, where that is known.

    Raises:
        UserError: it takes no such images, gives no logits, cannot be traced, ends the process that it is in, or
            nothing in it may be pruned.
    """
    opening = _opened(module, name, shape, selection, classes)
    return opening.network, opening.selection


def _opened(
    module: nn.Module, name: str, shape: tuple[int, int, int], selection: Selection, classes: int | None
) -> Opening:
    with told_of(f"trying on copies of model '{name}' which of its layers can be pruned"):
        opening = open_module(module, shape, selection, classes, f"model '{name}'")
    if opening.note is not None:
        warn(opening.note)
    return opening


def _trained_for_a_step(opening: Opening, amounts: Amounts, config: RunConfig[Any]) -> Opening:
    """Tried before anything is run, where it may be a CPU that trains."""
    on_gpus = torch.cuda.is_available() or bool(config.search.gpus and config.replay.gpus)
    if on_gpus or config.precision == "fp16":
        return opening
    precision = resolve(config.precision, torch.device("cpu"))
    widths = {unit.layer: unit.filters - amounts.removed(unit) for unit in opening.network.units}
    with told_of(f"trying a step of training of model '{config.model}'"):
        is_certain = pipeline_named(config.pipeline).takes_target
        trained = trained_for_a_step(opening, widths, precision, f"model '{config.model}'", is_certain)
    if trained.note is not None and trained is not opening:
        warn(trained.note)
    return trained


def find_for(
    target: str,
    network: DenseNetwork,
    amounts: Amounts,
    precision: PrecisionChoice,
    calibration: tuple[PruningData, int] | None = None,
) -> Found:
    """What reaches `--target`; looked for on this machine's GPU where it has one, else on its CPU, and so is latency.

    Warns where it leaves some layers next to nothing.

    Args:
        calibration: images to allocate by, and the run's seed; without them one ratio holds for all layers.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with told_of("looking for what reaches the target"):
        found, objection = find(parse_target(target), network, amounts, device, precision, calibration)
    if objection is not None:
        warn(objection)
    return found


def calibration_of(
    dataset: Dataset, roles: Roles, config: RunConfig[Any], given: Given, shape: tuple[int, int, int], layout: Layout
) -> tuple[PruningData, int] | None:
    """The images that an allocation looks at, and the seed; None where none is asked for."""
    if not config.options.allocates:
        return None
    rows = subsample(dataset, roles.train, IMAGES, config.seed, "allocation")
    images = read_few(dataset, rows, skip=config.data_errors == "skip")
    return PruningData(images, images, _preprocessing(dataset, config, given, shape, layout)), config.seed


def image_shape_of(dataset: Dataset, config: RunConfig[Any]) -> tuple[int, int, int]:
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


@torch.inference_mode()
def _classes(network: DenseNetwork, shape: tuple[int, int, int]) -> int:
    images = laid_out(torch.zeros(2, *shape), network.layout)
    return logits_of(network.build(torch.device("cpu"))(images)).shape[1]


def _preprocessing(
    dataset: Dataset, config: RunConfig[Any], given: Given, shape: tuple[int, int, int], layout: Layout
) -> Preprocessing:
    """As given; else crops and flips for small images, as the paper's CIFAR recipe has them, none for larger ones."""
    own, argument = given.preprocessing, "preprocessing"
    if own is None:
        pads, flips = dataset.usual_augmentation(shape)
        if config.augment == "none":
            pads, flips = 0, False
        elif config.augment == "crop-flip":
            pads, flips = max(1, shape[1] // 8), True
        is_usual = (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD)
        mean, std = (None, None) if is_usual else (config.mean, config.std)
        own, argument = Preprocessing(mean, std, pads, flips), "--mean, --std"
    try:
        fitting = own.for_images(shape[0], torch.float32 if dataset.dtype == np.float32 else torch.uint8)
    except UserError as error:
        raise UserError(f"{argument}: {error}") from error
    return dataclasses.replace(fitting, channels_last=layout == "channels_last")
