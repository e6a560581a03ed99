"""Checks and traces a user's network in a forked process, for what it does may end the process that it runs in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ice_ray.engine.forked import DiedError, LeftUndoneError, SlowError, run_forked
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError
from ice_ray.models.answers import logits_of
from ice_ray.models.asking import check_answers, copied_to_cpu
from ice_ray.models.kinds import check_finite, plain_module
from ice_ray.models.layout import Layout, is_safe_in_channels_last, laid_out, strided_pointwise
from ice_ray.models.ties import check_overlaps
from ice_ray.pruning.removal import Left
from ice_ray.pruning.selection import Selection
from ice_ray.training.config import Precision
from ice_ray.training.precision import autocast

SECONDS_TO_ANSWER = 600.0
"""For two images: what takes longer hangs."""
SECONDS_TO_TRY = 3600.0
"""For removal, tried on copies of a network whatever its size."""
_MOST_IMAGES, _MOST_PIXELS = 32, 32 * 32 * 32
"""Of a step of training that is tried: a small one of the kind that trials take."""
_CPU = torch.device("cpu")
_GOES_ON = "it is used in the contiguous memory layout, which it survives"
_NO_HELP = "neither another memory layout nor precision fp32 helps: try another version of torch, or another model"


@dataclass(frozen=True)
class Opening:
    """A network that can be worked with.

    Attributes:
        module: a copy on the CPU, out of what wrapped it.
        network: the same, traced.
        selection: without the layers whose removal, tried on copies, goes wrong.
        note: what people should know of it, if there is anything.
    """

    module: nn.Module
    network: DenseNetwork
    selection: Selection
    note: str | None = None


def open_module(
    module: object,
    image_shape: tuple[int, int, int],
    selection: Selection = Selection(),
    classes: int | None = None,
    name: str = "the model",
) -> Opening:
    """A module looked at and traced.

    Args:
        image_shape: (C, H, W).
        classes: at least so many logits it must give, where that is known.
        name: what messages call it.

    Raises:
        UserError: it is none that can be worked with, takes no such images, does not give logits, cannot be traced,
            ends the process that it is in, or nothing in it may be pruned.
    """
    given = plain_module(module, name)
    check_overlaps(given)
    own = copied_to_cpu(given, name)
    check_finite(own, name)
    try:
        _tried(lambda: check_answers(own, image_shape, classes, name), SECONDS_TO_ANSWER, name, "cannot be asked")
    except DiedError as death:
        raise UserError(f"{name} ended the process that asked it for logits ({death})") from None
    try:
        return _traced(own, image_shape, selection, name, None)
    except DiedError as death:
        cause = f"{name} ended the process that looked at it ({death})"
    try:
        opening = _traced(own, image_shape, selection, name, "contiguous")
    except DiedError:  # again
        raise UserError(f"{cause}; {_NO_HELP}") from None
    return dataclasses.replace(opening, note=f"{cause}: {_GOES_ON}")


def trained_for_a_step(
    opening: Opening, left: Left, precision: Precision, name: str = "the model", is_certain: bool = True
) -> Opening:
    """The same, once it has borne a step of training on a CPU, dense and with these filters; or in another layout,
    where it does not bear that in its own, or must not be tried in it.

    Args:
        is_certain: whether these are the filters that will be left; else there may be fewer.

    Raises:
        UserError: it ends the process that it is in, with what mends that, or cannot be trained.
    """
    network = opening.network
    if network.layout != "contiguous" and not _is_safe(network, left if is_certain else _narrowest(network), name):
        other = _contiguous(opening, name)
        if other is None:
            raise UserError(f"{name} works in channels_last alone, where training writes beyond its memory; {_NO_HELP}")
        opening, network = other, other.network
    cause = _death(network, left, precision, name)
    if cause is None:
        return opening
    said = f"{name} ended the process that trained it for a step in {precision} on the CPU ({cause})"
    if network.layout != "contiguous":
        other = _contiguous(opening, name)
        if other is not None and _death(other.network, left, precision, name) is None:
            return dataclasses.replace(other, note=f"{said}: {_GOES_ON}")
    helps = precision != "fp32" and _death(network, left, "fp32", name) is None
    raise UserError(f"{said}; {'take precision fp32, which it survives' if helps else _NO_HELP}")


def _is_safe(network: DenseNetwork, left: Left, name: str) -> bool:
    if not strided_pointwise(network.build(_CPU)):
        return True
    try:
        return bool(
            _tried(
                lambda: is_safe_in_channels_last(network.build_pruned(left, _CPU)),
                SECONDS_TO_TRY,
                name,
                "cannot be pruned",
            )
        )
    except DiedError:
        return False


def _narrowest(network: DenseNetwork) -> Left:
    """As few filters as every layer may be left with: one a group, or those that must stay."""
    return {unit.layer: unit.groups * max(1, len(unit.fixed) // unit.groups) for unit in network.units}


def _contiguous(opening: Opening, name: str) -> Opening | None:
    try:
        return _traced(opening.module, opening.network.image_shape, opening.selection, name, "contiguous")
    except DiedError:
        return None


def _death(network: DenseNetwork, left: Left, precision: Precision, name: str) -> str | None:
    try:
        _tried(
            lambda: _steps(network, left, precision),
            SECONDS_TO_TRY,
            name,
            f"cannot be trained for a step in {precision}",
        )
    except DiedError as death:
        return str(death)
    return None


def _steps(network: DenseNetwork, left: Left, precision: Precision) -> None:
    _, height, width = network.image_shape
    count = max(2, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))
    noise = torch.randn(count, *network.image_shape, generator=torch.Generator().manual_seed(0))
    for model in (network.build(_CPU), network.build_pruned(left, _CPU)):
        images = laid_out(noise, network.layout)
        with torch.enable_grad():
            with autocast(precision, _CPU):
                logits = logits_of(model.train()(images))
            logits.float().sum().backward()


def _traced(
    module: nn.Module, shape: tuple[int, int, int], selection: Selection, name: str, layout: Layout | None
) -> Opening:
    def look() -> dict[str, Any]:
        network, own = DenseNetwork.verified(module, shape, selection, layout)
        return {"layout": network.layout, "faulty": own.faulty}

    found = _tried(look, SECONDS_TO_TRY, name, "cannot be traced")
    faulty = tuple((layer, reason) for layer, reason in found["faulty"])
    own = dataclasses.replace(selection, faulty=faulty)
    return Opening(module, DenseNetwork(module, shape, own, layout=found["layout"]), own)


def _tried(work: Callable[[], Any], seconds: float, name: str, fails: str) -> Any:
    """Raises UserError: the work is not done in time, or raises something; DiedError: the process ended."""
    try:
        return run_forked(work, seconds)
    except SlowError as slow:
        raise UserError(f"{name} {fails}: {slow}") from None
    except LeftUndoneError as error:
        raise UserError(f"{name} {fails} ({error})") from None
