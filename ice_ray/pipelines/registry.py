"""The pipelines by name, a file each."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ice_ray.errors import OwnCodeError, UserError, nearest
from ice_ray.extensions import check_takes, is_own, load_own, meant_as_own
from ice_ray.guard import guarded
from ice_ray.hyperparameters import Hyperparameters, IceHyperparameters
from ice_ray.pipelines.aap import AapHyperparameters, AapPipeline
from ice_ray.pipelines.base import Pipeline
from ice_ray.pipelines.baseline import BaselineHyperparameters, BaselinePipeline
from ice_ray.pipelines.ice import IcePipeline
from ice_ray.pipelines.imp import BimpHyperparameters, ImpHyperparameters, ImpPipeline
from ice_ray.pipelines.one_shot import OneShotHyperparameters, OneShotPipeline
from ice_ray.pipelines.own import OwnPipeline
from ice_ray.pipelines.settings import PruningSettings

_FORM = "a pipeline's function takes (settings, hyperparameters) and gives an ice_ray Pipeline"


@dataclass(frozen=True)
class PipelineKind:
    """What a name stands for.

    Attributes:
        build: makes it, from what a run prunes and how, and one trial's hyperparameters.
        hyperparameters: what is searched.
        is_uniform: whether every layer loses the share that --ratio names, so that --target can find it.
        trains_anew: whether it begins with a network that knows nothing.
        search_share: of the training images, what a trial has unless asked otherwise: more where the length of a
            retraining is searched, which on few images does harm at any length.
    """

    build: Callable[[PruningSettings, Any], Pipeline]
    hyperparameters: type[Hyperparameters]
    is_uniform: bool = True
    trains_anew: bool = False
    search_share: float = 0.02


def _ice(settings: PruningSettings, hyperparameters: IceHyperparameters) -> Pipeline:
    return IcePipeline(
        hyperparameters=hyperparameters,
        fine_tune=settings.fine_tune,
        removal=settings.removal,
        counting=settings.counting,
        learning_rate_tolerance=settings.learning_rate_tolerance,
        decision_error=settings.decision_error,
        freeze_stem=settings.freeze.stem,
        repair=settings.repair,
        ablations=settings.ablations,
    )


def _baseline(settings: PruningSettings, hyperparameters: BaselineHyperparameters) -> Pipeline:
    _refuse(settings, "--fine-tune.check-every", "--replay.final-epochs")
    return BaselinePipeline(
        hyperparameters=hyperparameters,
        fine_tune=settings.fine_tune,
        removal=settings.removal,
        repair=settings.repair,
    )


def _one_shot(settings: PruningSettings, hyperparameters: OneShotHyperparameters) -> Pipeline:
    _refuse(settings, "--repair", "--fine-tune.check-every", "--fine-tune.schedule", "--replay.final-epochs")
    return OneShotPipeline(hyperparameters=hyperparameters, fine_tune=settings.fine_tune, removal=settings.removal)


def _aap(settings: PruningSettings, hyperparameters: AapHyperparameters) -> Pipeline:
    _refuse(settings, "--repair", "--criterion", "--fine-tune.check-every", "--replay.final-epochs")
    _refuse_amounts_by_layer(settings)
    return AapPipeline(
        hyperparameters=hyperparameters,
        fine_tune=settings.fine_tune,
        ratio=settings.amounts.ratio,
        config=settings.aap,
    )


def _imp(settings: PruningSettings, hyperparameters: ImpHyperparameters) -> Pipeline:
    _refuse(settings, "--repair", "--criterion", "--fine-tune.check-every", "--fine-tune.schedule")
    _refuse(settings, "--replay.final-epochs")
    _refuse_amounts_by_layer(settings)
    return ImpPipeline(
        hyperparameters=hyperparameters, fine_tune=settings.fine_tune, goal=settings.amounts.ratio, config=settings.imp
    )


def _refuse(settings: PruningSettings, *options: str) -> None:
    """Raises UserError: the pipeline would ignore an option that is given."""
    given = {
        "--repair": settings.repair != "none",
        "--criterion": settings.criterion != PruningSettings().criterion,
        "--fine-tune.check-every": settings.fine_tune.early_stopping is not None,
        "--fine-tune.schedule": settings.fine_tune.schedule != "constant",
        "--replay.final-epochs": settings.fine_tune.final_epochs > 0,
    }
    for option in options:
        if given[option]:
            raise UserError(f"{option} is not for --pipeline {settings.pipeline}")


def _refuse_amounts_by_layer(settings: PruningSettings) -> None:
    if settings.amounts.by_layer or settings.amounts.round_to > 1:
        raise UserError(
            f"--pipeline {settings.pipeline} compares filters of all layers: it takes no --prune.ratios and no "
            "--prune.round-to"
        )


PIPELINES: dict[str, PipelineKind] = {
    "ice": PipelineKind(_ice, IceHyperparameters),
    "ice-plus": PipelineKind(_ice, IceHyperparameters, search_share=0.1),
    "baseline": PipelineKind(_baseline, BaselineHyperparameters),
    "one-shot": PipelineKind(_one_shot, OneShotHyperparameters, search_share=0.1),
    "aap": PipelineKind(_aap, AapHyperparameters, is_uniform=False),
    "imp": PipelineKind(_imp, ImpHyperparameters, is_uniform=False, search_share=0.1),
    "bimp": PipelineKind(_imp, BimpHyperparameters, is_uniform=False, trains_anew=True, search_share=0.1),
}


_ICE = ("threshold", "freezing", "scheduler", "decision-error", "alpha", "freeze.", "search.lr-tolerance")
_ICES = ("ice", "ice-plus")
_BY_LAYER = ("prune.ratios", "prune.round-to")
_REPAIRS = ("repair", "prune.reconstruction-epochs")
_OF_LAYERS = ("criterion", *_BY_LAYER, *_REPAIRS, "prune.calibration-images")
_EPOCHS = ("search.epochs", "replay.epochs")  # where their number is one of the hyperparameters
# By their beginnings: the options that only some pipelines read, with these; and those that one does not.
_OF: dict[tuple[str, ...], tuple[str, ...]] = {_ICE: _ICES, ("aap.",): ("aap",), ("imp.",): ("imp", "bimp")}
_NOT_OF: dict[str, tuple[str, ...]] = {
    "baseline": ("fine-tune.check-", "replay.final-"),
    "one-shot": (*_REPAIRS, *_EPOCHS, "fine-tune.check-", "fine-tune.schedule", "replay.final-"),
    "aap": (*_OF_LAYERS, "fine-tune.check-", "replay.final-"),
    "imp": (*_OF_LAYERS, *_EPOCHS, "fine-tune.check-", "fine-tune.schedule", "replay.final-"),
    "bimp": (*_OF_LAYERS, *_EPOCHS, "fine-tune.check-", "fine-tune.schedule", "replay.final-"),
}


def is_ignored(pipeline: str, option: str) -> str:
    """Where a pipeline does not read an option: which do, for people. Of the user's own nobody knows.

    >>> is_ignored("ice", "aap.rounds"), is_ignored("aap", "aap.rounds"), is_ignored("mine:build", "aap.rounds")
    ('is for --pipeline aap, not for ice', '', '')
    """
    if pipeline not in PIPELINES:
        return ""
    for beginnings, pipelines in _OF.items():
        if option.startswith(beginnings) and pipeline not in pipelines:
            return f"is for --pipeline {' and '.join(pipelines)}, not for {pipeline}"
    if not option.startswith(_NOT_OF.get(pipeline, ())):
        return ""
    why = ", which compares filters of all layers" if option.startswith(_BY_LAYER) else ""
    return f"is not for --pipeline {pipeline}{why}"


def pipeline_kind(name: str) -> PipelineKind:
    """The pipeline of that name, or the user's own `package.module:function` of the same two arguments.

    What the latter annotates its second argument with is what is searched for it; without that, ICE's six.

    Raises:
        UserError: there is none.
    """
    if is_own(name):
        build = load_own(name, "pipeline")
        check_takes(build, name, "pipeline", ("settings", "hyperparameters"), _FORM)
        return PipelineKind(build, _annotated(build))
    if name not in PIPELINES:
        raise UserError(
            f"unknown pipeline '{name}' ({nearest(name, list(PIPELINES))}; or package.module:function"
            f"{meant_as_own(name)})"
        )
    return PIPELINES[name]


def build_pipeline(settings: PruningSettings, hyperparameters: Hyperparameters) -> Pipeline:
    """The pipeline that the settings name.

    Raises:
        UserError: there is none of that name, or the user's own gives something else.
    """
    name, build = settings.pipeline, pipeline_kind(settings.pipeline).build
    if not is_own(name):
        return build(settings, hyperparameters)
    with guarded(name, "pipeline"):
        own = build(settings, hyperparameters)
    if not isinstance(own, Pipeline):
        raise OwnCodeError(f"pipeline '{name}' gives {type(own).__name__}, not an ice_ray Pipeline; {_FORM}")
    return OwnPipeline(hyperparameters=hyperparameters, fine_tune=own.fine_tune, name=name, own=own)


def _annotated(build: Callable[..., Any]) -> type[Hyperparameters]:
    try:
        hints = typing.get_type_hints(build)
        second = list(inspect.signature(build).parameters)[1]
    except (NameError, TypeError, ValueError, IndexError):
        return IceHyperparameters
    found = hints.get(second)
    if isinstance(found, type) and issubclass(found, Hyperparameters) and found is not Hyperparameters:
        return found
    return IceHyperparameters
