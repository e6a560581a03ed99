"""What a caller in Python gives a run as objects, where a command line has names."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ice_ray.data.images import Preprocessing
from ice_ray.ingest.datasets import Dataset
from ice_ray.models.kinds import plain_module

OBJECTS = "objects"
"""What records call data that were given as objects."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Given:
    """Objects in the place of options.

    Attributes:
        model: the dense model, whose class's name `config.model` then is.
        data: its images, for which `config.data` then is `OBJECTS`.
        data_digest: of the images; empty where they are too many, or differ each time that they are read.
        preprocessing: in the place of `config.mean`, `std` and `augment`.
        code: the line of Python that begins the run anew; empty where a command line does.
    """

    model: nn.Module | None = None
    data: Dataset | None = None
    data_digest: str = ""
    preprocessing: Preprocessing | None = None
    code: str = ""

    def record(self) -> dict[str, Any]:
        """What a run's folder keeps of it, so that the run goes on with the same: a digest of the model, whether data
        were given and their digest, and what changes an image.
        """
        return {
            "model": None if self.model is None else digest_of(self.model),
            "data": None if self.data is None else f"{OBJECTS} {self.data_digest}",
            "preprocessing": None if self.preprocessing is None else self.preprocessing.as_dict(),
        }

    def going_on(self, name: str) -> str:
        """How to go on with the run of that name."""
        return f"ice_ray.search(..., name={name!r}, resume=True)" if self.code else f"--resume --name {name}"


NAMED = Given()
"""Nothing is given as an object: all goes by names."""


@torch.no_grad()
def digest_of(model: nn.Module) -> str:
    """A digest of a model's layers and weights: those of another model differ."""
    own = plain_module(model)
    digest = hashlib.blake2b(_ADDRESS.sub("", repr(own)).encode(), digest_size=16)
    for name, tensor in own.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for name, parameter in own.named_parameters():
        digest.update(f"{name} {parameter.requires_grad} ".encode())
    return digest.hexdigest()
