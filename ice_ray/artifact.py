"""The saved pruned model: safetensors weights and a JSON file that says how to rebuild the module. No code in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ice_ray.address import StoragePath, storage_path
from ice_ray.errors import UserError
from ice_ray.files import damage_named, sha256, write_json
from ice_ray.models.asking import copied_to_cpu
from ice_ray.models.frozen import freeze
from ice_ray.models.kinds import plain_module
from ice_ray.models.layout import Layout, lay_out
from ice_ray.models.registry import ModelSpec, call_builder, check_builder
from ice_ray.models.ties import check_overlaps
from ice_ray.models.weights import fit_weights
from ice_ray.pruning.removal import Left, shrink_to
from ice_ray.tensor_files import read_tensors, write_tensors
from ice_ray.torch_defaults import usual_defaults

SCHEMA_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_BUILT = "what the builder returns"


def save_pruned(
    folder: Path | StoragePath,
    spec: ModelSpec,
    image_shape: tuple[int, int, int],
    left: Left,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
    frozen: Sequence[str] = (),
    layout: Layout | None = None,
) -> None:
    """Write a pruned model into `folder`.

    Args:
        spec: how its dense form is built.
        left: filters of the dense model that each pruned layer has: which, or how many where nobody knows which.
        tensors: its state dict.
        facts: metrics, preprocessing, configuration and versions, for people and programs.
        frozen: parameters, by name, that are to require no gradient when it is loaded.
        layout: in which its weights lie in memory once it is loaded; without one, the one found by trying.
    """
    storage_path(folder).make_folder()
    write_tensors(folder / WEIGHTS, tensors)
    description = {
        "schema_version": SCHEMA_VERSION,
        "builder": {"name": spec.name, "num_classes": spec.num_classes},
        "image_shape": list(image_shape),
        "widths": {layer: own if isinstance(own, int) else len(own) for layer, own in left.items()},
        "kept": {layer: list(own) for layer, own in left.items() if not isinstance(own, int)},
        "frozen": list(frozen),
        "layout": layout,
        "sha256": sha256(folder / WEIGHTS),
        **facts,
    }
    write_json(folder / DESCRIPTION, description)


@torch.inference_mode(False)  # surgery follows the network's graph through autograd
@usual_defaults()
def load_pruned(path: str | StoragePath, builder: Callable[..., nn.Module] | None = None) -> nn.Module:
    """Rebuild a pruned model, in eval mode on the CPU, from the folder that a run wrote.

    Images go in as float32 (N, C, H, W), normalised with the mean and std that `model.json` gives, one a channel; where
    it gives none, as the images were that the model was pruned with.

    Args:
        path: the `pruned_model` folder, or its address (`s3://bucket/path`).
        builder: for a model of your own, its class or the function that builds its dense form, as for `--model`: it
            may take `num_classes`, and nothing else (`lambda: Net(width=32)`). It is never imported from a name in the
            file: a file must not choose what code runs.

    Raises:
        UserError: not such a folder, a damaged or edited file, or a builder that is missing or does not fit.
    """
    folder = storage_path(path)
    folder.check("pruned model")
    description = read_description(folder)
    name, classes = description["builder"]["name"], description["builder"]["num_classes"]
    if builder is not None:
        _check_builder(builder)
        # A copy: what it returns may be the caller's own dense model, which stays as it is.
        own = plain_module(call_builder(builder, classes), _BUILT)
        check_overlaps(own)
        module = copied_to_cpu(own, _BUILT)
    elif ModelSpec(name, classes).is_known:
        module = ModelSpec(name, classes).build()
    else:
        raise UserError(
            f"'{folder}' was built by {name!r}: give that function, load_pruned(path, builder=...) "
            "or --builder MODULE:FUNCTION"
        )
    with (folder / WEIGHTS).on_disk() as file:
        if sha256(file) != description["sha256"]:
            raise UserError(f"'{folder / WEIGHTS}' is damaged: its SHA-256 is not the one in {DESCRIPTION}")
        try:
            if description.get("layout") is not None:  # else it is found by trying
                lay_out(module, description["layout"])
            left = {**description["widths"], **description.get("kept", {})}
            shrink_to(module, tuple(description["image_shape"]), left)
            weights, _ = read_tensors(file)
        except (ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"'{folder}' does not describe a pruned {name} ({error})") from error
    fit_weights(module, weights, str(folder / WEIGHTS))
    frozen = description.get("frozen")  # files of before it was written down have none
    if frozen is not None:
        freeze(module, frozen)
    return module.eval()


def _check_builder(builder: Callable[..., nn.Module]) -> None:
    if isinstance(builder, nn.Module) or not callable(builder):
        raise UserError(
            f"builder is of type {type(builder).__name__}: give a function or class, as builder=lambda: ..."
        )
    try:
        check_builder(builder, getattr(builder, "__name__", type(builder).__name__), "builder")
    except UserError as error:
        raise UserError(f"{error}; where it takes more: builder=lambda: Net(...)") from error


def read_description(folder: StoragePath) -> dict[str, Any]:
    """What `model.json` in a `pruned_model` folder says, checked as far as rebuilding the module depends on it.

    Raises:
        UserError: not such a folder, or the file is damaged or of another version.
    """
    path = folder / DESCRIPTION
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"'{folder}' is no pruned model: it needs {DESCRIPTION} and {WEIGHTS}")
    with damage_named(path):
        description = json.loads(path.read_text())
        version = description["schema_version"]
        builder, widths, shape = description["builder"], description["widths"], description["image_shape"]
        usable = (
            isinstance(builder["name"], str)
            and _is_count(builder["num_classes"])
            and all(isinstance(layer, str) and _is_count(width) for layer, width in widths.items())
            # Older files do not say which filters are left.
            and all(_are_indices(own, widths[layer]) for layer, own in description.get("kept", {}).items())
            and len(shape) == 3
            and all(_is_count(size) for size in shape)
            and isinstance(description["sha256"], str)
            and isinstance(frozen := description.get("frozen", []), list)
            and all(isinstance(name, str) for name in frozen)
            and description.get("layout") in (None, *get_args(Layout))  # older files do not say
        )
    if version != SCHEMA_VERSION:
        raise UserError(f"'{path}' has schema version {version!r}; this ice_ray reads version {SCHEMA_VERSION}")
    if not usable:
        raise UserError(f"'{path}' is damaged: builder, widths, kept, frozen, layout or image_shape are not right")
    return dict(description)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000


def _are_indices(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(each == 0 or _is_count(each) for each in value)
