"""What is given by keyword, checked: faults are told in one line that names the argument."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from ice_ray.data.images import Preprocessing, PruningData
from ice_ray.engine.allocation import find
from ice_ray.engine.config import Found, Rung, parse_target
from ice_ray.engine.network import DenseNetwork
from ice_ray.errors import UserError, nearest
from ice_ray.pipelines.base import PipelineConfig
from ice_ray.pipelines.registry import pipeline_named
from ice_ray.pruning.amounts import Amounts
from ice_ray.training.config import PrecisionChoice

_MOST_PIXELS = 1 << 16
Settings = TypeVar("Settings")


def whole(name: str, value: object) -> int:
    """A whole number; NumPy's are some too.

    Raises:
        UserError: it is none.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type] # who is no number raises a TypeError
    except TypeError:
        pass
    raise UserError(f"{name}={value!r:.80} must be a whole number")


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """Its arguments that may be left out, by name."""
    given = inspect.signature(function).parameters.values()
    return [each.name for each in given if each.default is not each.empty]


def device_of(asked: torch.device | str | int | None) -> torch.device:
    """The device that is asked for; else a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked is None else asked)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device={asked!r:.80} is none that torch knows: 'cpu', 'cuda' or 'cuda:0'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device={asked!r}: torch finds no GPU here")
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # one that is not there, or holds no numbers: every backend's own
        raise UserError(f"device={asked!r}: torch cannot calculate on it here") from error
    return device


def check_preprocessing(given: object) -> None:
    """Raises UserError: it is none."""
    if given is not None and not isinstance(given, Preprocessing):
        raise UserError(f"preprocessing={given!r:.80} must be a Preprocessing: ice_ray.Preprocessing(mean, std)")


def rungs_of(target: str | None, ratio: float | None) -> tuple[Rung, ...] | None:
    """What is to be left, where a target says so, rung by rung.

    Raises:
        UserError: it is no target, or a ratio says how much to prune too.
    """
    if target is None:
        return None
    if not isinstance(target, str):
        raise UserError(f"target={target!r:.80} must be words as 'macs=0.5', 'params=0.4' or 'onnx-latency=0.6'")
    if ratio is not None:
        raise UserError("ratio and target both say how much to prune: give one of them")
    return parse_target(target)


def found_for(
    wanted: Sequence[Rung],
    network: DenseNetwork,
    amounts: Amounts,
    device: torch.device,
    precision: PrecisionChoice,
    images: tuple[PruningData, int] | None = None,
) -> Found:
    """What reaches a target. Warns the caller's caller where it leaves some layers next to nothing.

    Args:
        images: to allocate by, and the run's seed; without them one ratio holds for all layers.
    """
    found, objection = find(wanted, network, amounts, device, precision, images)
    if objection is not None:
        warnings.warn(objection, stacklevel=4)
    return found


def image_shape_of(given: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W).

    Raises:
        UserError: it is none.
    """
    try:
        channels, height, width = (whole("image_shape", size) for size in given)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(
            f"image_shape={given!r:.80} must be three whole numbers, channels, height and width: (3, 224, 224)"
        ) from error
    if not all(0 < size <= _MOST_PIXELS for size in (channels, height, width)):
        raise UserError(f"image_shape={tuple(given)} must be of numbers from 1 to {_MOST_PIXELS}")
    return channels, height, width


def pipeline_config(
    pipeline: str, config: PipelineConfig | None, options: Mapping[str, Any], others: Sequence[str] = ()
) -> PipelineConfig:
    """A pipeline's options, those given by keyword in their place.

    Args:
        config: what is not given is taken from it. [default: the pipeline's defaults]
        others: arguments of the function beside these options, for a word that is none.

    Raises:
        UserError: an option that the pipeline has not, or a value that it does not take.
    """
    kind = pipeline_named(pipeline).Config
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            raise UserError(f"pipeline {pipeline} has no option '{name}' ({nearest(name, list({*known, *others}))})")
    base = kind() if config is None else config
    if not isinstance(base, kind):
        raise UserError(f"config of pipeline {pipeline} must be of {kind.__name__}, not {type(base).__name__}")
    return validated(kind, {name: getattr(base, name) for name in known} | dict(options))


def validated(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """A settings object of these values, each of its field's kind.

    Raises:
        UserError: one is not.
    """
    _check_numbers(kind, values)
    try:
        found: Settings = TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        raise UserError(f"{name}={values[name]!r:.80}: {first['msg']}") from error
    return found


_NUMBERS = {int, float, NoneType}


def _check_numbers(kind: Any, values: Mapping[str, Any], group: str = "") -> None:
    """Raises UserError: text or True in the place of a number, or text in that of True: pydantic reads one out."""
    hints = get_type_hints(get_origin(kind) or kind)
    for name, given in values.items():
        wanted = set(get_args(hints.get(name))) or {hints.get(name)}
        if isinstance(given, Mapping) and dataclasses.is_dataclass(hints.get(name)):
            _check_numbers(hints[name], given, f"{group}{name}.")
        elif wanted <= _NUMBERS and isinstance(given, (str, bytes, bool)):
            raise UserError(f"{group}{name}={given!r:.80} must be a number")
        elif wanted == {bool} and not isinstance(given, bool):
            raise UserError(f"{group}{name}={given!r:.80} must be True or False")
