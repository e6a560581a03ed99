"""The datasets by name, a file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ice_ray.address import at_home
from ice_ray.errors import UserError, nearest
from ice_ray.extensions import check_takes, is_own, load_own, meant_as_own
from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.datasets.cifar10 import open_cifar10
from ice_ray.ingest.datasets.cifar100 import open_cifar100
from ice_ray.ingest.datasets.digits import Digits
from ice_ray.ingest.datasets.fashionmnist import open_fashionmnist
from ice_ray.ingest.datasets.imagefolder import ImageFolder
from ice_ray.ingest.datasets.imagenet import ImageNet
from ice_ray.ingest.datasets.own import OwnDataset
from ice_ray.ingest.datasets.parquet import Parquet
from ice_ray.ingest.datasets.tinyimagenet import TinyImageNet

DATASETS: dict[str, Callable[[str | None, int | None], Dataset]] = {
    "digits": lambda argument, size: Digits(),
    "cifar10": open_cifar10,
    "cifar100": open_cifar100,
    "fashionmnist": lambda argument, size: open_fashionmnist(argument),
    "tinyimagenet": lambda argument, size: TinyImageNet(argument or "", size),
    "imagenet": lambda argument, size: ImageNet(argument or "", size),
    "parquet": lambda argument, size: Parquet(argument or "", size),
    "imagefolder": lambda argument, size: ImageFolder(argument or "", size),
}
_NEED_A_PATH = ("tinyimagenet", "imagenet", "parquet", "imagefolder")

__all__ = ["DATASETS", "Dataset", "is_own_data", "open_dataset", "own_function"]


def open_dataset(name: str, image_size: int | None = None) -> Dataset:
    """The dataset that `NAME[:ARGUMENT]` names, its labels read and checked, no image decoded.

    A name of ours comes before a `package.module:function`, which is called with Ray running.

    Raises:
        UserError: unknown name, missing path, or labels that cannot be.
    """
    if is_own_data(name):
        return OwnDataset(name, own_function(name), image_size)
    kind, _, argument = name.partition(":")
    if kind not in DATASETS:
        raise UserError(
            f"unknown data '{name}' ({nearest(kind, list(DATASETS))}; or package.module:function{meant_as_own(name)})"
        )
    if kind in _NEED_A_PATH and not argument:
        raise UserError(f"data '{name}' needs a path: {kind}:PATH")
    if kind == "digits" and argument:
        raise UserError(f"data '{name}': digits takes no argument")
    dataset = DATASETS[kind](at_home(argument) or None, image_size)
    if image_size is not None and not dataset.can_resize:
        raise UserError(f"data '{name}' comes in one size: leave the image size out")
    return dataset


def is_own_data(name: str) -> bool:
    """Whether a name is a function of the user's.

    >>> is_own_data("mine.data:build"), is_own_data("imagefolder:photos")
    (True, False)
    """
    return name.partition(":")[0] not in DATASETS and is_own(name)


def own_function(name: str) -> Callable[[], Any]:
    """The user's function, imported but not called.

    Raises:
        UserError: there is none of that name.
    """
    try:
        function = load_own(name, "data")
    except UserError as error:
        raise UserError(f"{error}, or one of ours ({nearest(name.partition(':')[0], list(DATASETS))})") from error
    check_takes(function, name, "data", (), "a function of data takes nothing and gives a dict of Ray Data datasets")
    return function
