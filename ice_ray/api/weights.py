"""Trained weights into a model of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from torch import nn

from ice_ray.address import StoragePath
from ice_ray.errors import UserError
from ice_ray.models.kinds import plain_module
from ice_ray.models.weights import fit_weights, read_weights
from ice_ray.object_store import Address

Model = TypeVar("Model", bound=nn.Module)


def load_weights(model: Model, path: str | Path | StoragePath) -> Model:
    """Load a file of trained weights into `model`, in place, and return it.

    The file is one of safetensors, or one that torch has saved, with a state dict bare or under `state_dict`, `model`
    and the like. Prefixes that wrappers leave (`module.`, `_orig_mod.`) are taken off; then every name and shape must
    agree. Nothing in the file is run: one with more than tensors in it is refused, with the line that saves its weights
    alone. Warns of what was left out or chosen.

    Args:
        model: of the architecture that the weights were trained with, on any device.
        path: of the file, or its address (`s3://bucket/path`).

    Raises:
        UserError: no such file, no weights in it that can be read safely, or weights of another model; the model is
            then as it was.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> import ice_ray
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.head = nn.Linear(4, 2)
    ...     def forward(self, images):
    ...         return self.head(images.mean((2, 3)))
    >>> trained = Net()
    >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
    ...     torch.save({"epoch": 9, "state_dict": nn.DataParallel(trained).state_dict()}, file.name)
    ...     model = ice_ray.load_weights(Net(), file.name)
    >>> torch.equal(model.head.weight, trained.head.weight)
    True
    """
    own = plain_module(model)
    if isinstance(path, Mapping):
        raise UserError("path is a dict: give the path of a file; weights in memory go by model.load_state_dict")
    if not isinstance(path, (str, Path, Address)):
        raise UserError(f"path is of type {type(path).__name__}: give the path of a file")
    held = read_weights(path)
    for note in (*held.notes, *fit_weights(own, held.tensors, str(path))):
        warnings.warn(note, stacklevel=2)
    return model
