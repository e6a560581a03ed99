"""Trained weights, out of a user's file and into a model: under whichever names they were saved, but all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ice_ray.errors import UserError
from ice_ray.models.copies import fill
from ice_ray.models.ties import completed
from ice_ray.models.weight_files import FileWeights, load_state_dict, read_weights

__all__ = ["FileWeights", "fit_weights", "load_state_dict", "read_weights"]

_COUNTED_BY_OTHERS = ("total_ops", "total_params", "n_averaged")
"""Buffers that tools leave in a state dict: thop's counts of operations, and of averages."""
_LEFT_BY_TOOLS = (
    (re.compile(r"_mask$"), "they are masked: torch.nn.utils.prune.remove(module, 'weight') before saving"),
    (
        re.compile(r"(^|\.)parametrizations\."),
        "they are parametrised: torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') before saving",
    ),
    (re.compile(r"weight_u$"), "they have spectral_norm: torch.nn.utils.remove_spectral_norm(module) before saving"),
    (re.compile(r"weight_[gv]$"), "they have weight_norm: torch.nn.utils.remove_weight_norm(module) before saving"),
    (
        re.compile(r"(_scales?|zero_points?|\.SCB|_packed(_params)?|\.qweight|\.scale)$"),
        "weights that are quantised must be given as floats, their scales applied",
    ),
)
_COMPILED = "_orig_mod."
_AVERAGED = re.compile(r"(^|[._])(ema|swa|average[sd]?)[._]", re.IGNORECASE)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Load `weights` into `model` in place; every key and shape must agree, but for a prefix that all keys of the model
    have in them (`module.`, `_orig_mod.`, `model.`).

    Returns what was left out, in words.

    Raises:
        UserError: keys missing, unknown or of another shape, the first few named, or tensors of other numbers.
    """
    own = model.state_dict()
    fitting, notes = _renamed(own, weights, origin)
    fitting = completed(model, fitting, origin)
    _check_types(own, fitting, origin)
    _check_keys(own, fitting, origin)
    _check_numbers(own, fitting, origin)
    fill(model, fitting, strict=False)
    return notes


def _renamed(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origin: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """By the model's own names, where that makes all of them fit, without what tools have left."""
    kept = {key: each for key, each in weights.items() if key in own or not key.endswith(_COUNTED_BY_OTHERS)}
    notes = []
    if len(kept) < len(weights):
        left = sorted(set(weights) - set(kept))
        notes.append(f"weights '{origin}': {_some(left, 2)} left out, which a tool has added")
    for names in _namings(kept):
        prefixes = _prefixes(own, names)
        if len(prefixes) > 1:
            raise UserError(
                f"weights '{origin}' hold the model under each of {', '.join(map(repr, prefixes))}: "
                "save those that are meant alone, without the prefix"
            )
        for prefix in prefixes:
            found = {name.removeprefix(prefix): kept[key] for name, key in names.items() if name.startswith(prefix)}
            others = sorted(name for name in names if not name.startswith(prefix))
            if others:
                notes.append(f"weights '{origin}': what is under '{prefix}' is taken, {_some(others, 2)} left out")
            return found, tuple(notes)
    prefix = _likeliest_prefix(own, kept)
    bare = {key.removeprefix(prefix): each for key, each in kept.items()}
    return bare if len(bare) == len(kept) else kept, tuple(notes)


def _likeliest_prefix(own: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> str:
    """That under which most of the model's keys are, of weights that do not fit: what is said is of the rest."""
    endings = (name[: -len(key)] for name in names for key in own if name.endswith(f".{key}") or name == key)
    counts = Counter(endings)
    return counts.most_common(1)[0][0] if counts else ""


def _namings(weights: Mapping[str, Tensor]) -> Iterator[dict[str, str]]:
    """The file's keys by the names they may stand for: as they are, and without what wraps parts of a model."""
    yield {key: key for key in weights}
    yield {key.replace(_COMPILED, ""): key for key in weights}
    yield {key.replace(_COMPILED, "").replace(".module.", "."): key for key in weights}


def _prefixes(own: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """Those under which the names are exactly the model's, averaged copies last, and then only if they are alone."""
    needed = {key for key in own if not _is_optional(key)}
    if not needed:
        return []
    anchor = max(needed, key=len)
    possible = sorted({name[: -len(anchor)] for name in names if name.endswith(anchor)})
    fitting = [each for each in possible if (not each or each.endswith(".")) and _fits(own, needed, names, each)]
    trained = [each for each in fitting if not _AVERAGED.search(each)]
    return fitting[:1] if "" in fitting else trained or fitting


def _fits(own: Mapping[str, Tensor], needed: set[str], names: Mapping[str, str], prefix: str) -> bool:
    found = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return needed <= found <= set(own)


def _is_optional(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _check_keys(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origin: str) -> None:
    missing = sorted(key for key in set(own) - set(weights) if not _is_optional(key))
    unknown = sorted(set(weights) - set(own))
    shapes = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    faults = [f"missing {_some(missing)}"] if missing else []
    faults += [f"unknown {_some(unknown)}"] if unknown else []
    if shapes:
        pairs = [f"{key} is {tuple(weights[key].shape)} where the model has {tuple(own[key].shape)}" for key in shapes]
        faults.append(_some(pairs))
    if faults:
        what = _told_by_names(unknown) if missing or unknown else _other_shapes(own, weights, shapes)
        raise UserError(
            f"weights '{origin}' do not fit the model: {'; '.join(faults)}; {what or 'is it the right model?'}"
        )


def _told_by_names(unknown: list[str]) -> str | None:
    """What names that tools have left tell of them, and the call that undoes it."""
    return next((said for ending, said in _LEFT_BY_TOOLS if any(ending.search(key) for key in unknown)), None)


def _other_shapes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], keys: list[str]) -> str | None:
    """What shapes alone tell of where the weights come from."""
    order = [key for key, each in own.items() if each.ndim > 1]
    if order and set(keys) <= {order[-1], order[-1].removesuffix("weight") + "bias"}:
        theirs, ours = len(weights[order[-1]]), len(own[order[-1]])
        if theirs != ours:
            return f"they tell {theirs} classes apart, the model {ours}: give weights trained for these classes"
    smaller = all(
        len(weights[key].shape) == len(own[key].shape)
        and all(a <= b for a, b in zip(weights[key].shape, own[key].shape, strict=True))
        for key in keys
    )
    return "they are those of a narrower model, as of one that is pruned: give the dense model's" if smaller else None


def _check_types(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origin: str) -> None:
    for key in sorted(own.keys() & weights.keys()):
        if own[key].is_floating_point() and weights[key].dtype not in _FLOATS:
            raise UserError(
                f"weights '{origin}': {key} holds numbers of type {_type(weights[key])} where the model has "
                f"{_type(own[key])}; weights that are quantised must be given as floats, their scales applied"
            )


def _check_numbers(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origin: str) -> None:
    for key, value in weights.items():
        if not own[key].is_floating_point() and (value.dtype in _FLOATS) and not bool((value == value.round()).all()):
            raise UserError(f"weights '{origin}': {key} holds fractions where the model has {_type(own[key])}")
    not_finite = [key for key, value in weights.items() if not bool(value.to(own[key].dtype).isfinite().all())]
    if not_finite:
        raise UserError(f"weights '{origin}' hold NaN or infinity in {_some(not_finite)}")


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
