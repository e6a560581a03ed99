"""The datasets by name, a file each."""

from __future__ import annotations

from collections.abc import Callable

from ice_ray.errors import UserError, nearest
from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.datasets.cifar10 import open_cifar10
from ice_ray.ingest.datasets.digits import Digits
from ice_ray.ingest.datasets.imagefolder import ImageFolder
from ice_ray.ingest.datasets.parquet import Parquet

DATASETS: dict[str, Callable[[str | None, int | None], Dataset]] = {
    "digits": lambda argument, size: Digits(),
    "cifar10": open_cifar10,
    "parquet": lambda argument, size: Parquet(argument or "", size),
    "imagefolder": lambda argument, size: ImageFolder(argument or "", size),
}
_NEED_A_PATH = ("parquet", "imagefolder")

__all__ = ["DATASETS", "Dataset", "open_dataset"]


def open_dataset(name: str, image_size: int | None = None) -> Dataset:
    """The dataset that `NAME[:ARGUMENT]` names, its labels read and checked, no image decoded.

    Raises:
        UserError: unknown name, missing path, or labels that cannot be.
    """
    kind, _, argument = name.partition(":")
    if kind not in DATASETS:
        raise UserError(f"unknown data '{name}' ({nearest(kind, list(DATASETS))})")
    if kind in _NEED_A_PATH and not argument:
        raise UserError(f"data '{name}' needs a path: {kind}:PATH")
    if kind == "digits" and argument:
        raise UserError(f"data '{name}': digits takes no argument")
    dataset = DATASETS[kind](argument or None, image_size)
    if image_size is not None and not dataset.can_resize:
        raise UserError(f"data '{name}' comes in one size: leave --image-size out")
    return dataset
