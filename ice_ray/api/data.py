"""Images as users have them, as one run's data: torch's DataLoader and Dataset, tensors, Ray Data, or a name."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data as torch_data
from torch import Tensor

from ice_ray.api.arguments import check_preprocessing
from ice_ray.data.given import axes, image_set, largest, pair_of
from ice_ray.data.images import ImageSet, ImageSource, Preprocessing, PruningData
from ice_ray.data.loaders import reader_of, reads_by_key
from ice_ray.data.reading import Found, Reader, read_batches, read_items
from ice_ray.errors import UserError
from ice_ray.torch_defaults import usual_defaults

_LARGEST_USUAL = 32  # of normalised images: whoever gives more has mostly forgotten to divide by 255
_TAKEN = "a torch DataLoader or Dataset, (images, labels), a ray.data.Dataset, an ImageSet"


@usual_defaults()
def given_data(
    train: Any,
    val: Any = None,
    *,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> PruningData:
    """The images of a run, from whatever they are held in.

    Images are floats (N, C, H, W) that are normalised already and taken as they come, or uint8, (N, C, H, W) or
    (N, H, W, C), that `preprocessing` normalises; any number of channels, any height and width, one size for all.
    Labels are whole numbers from 0, one an image. What is the same at every reading is read once and held in memory (1
    byte a value in uint8, 4 in floats); where it would not fit there it is read again for every pass, as its DataLoader
    would.
    Items that differ when they are read twice are augmented already: training images are then read anew for every epoch
    and a warning says that runs may not repeat bit for bit; validation images are held as they were read first.

    Args:
        train: images to train on: a torch DataLoader or Dataset (map-style, or iterable: one pass, held), a pair
            (images, labels) of tensors or arrays, a `ray.data.Dataset` with columns image and label, an ImageSet or
            another ImageSource; or, without `val`, PruningData, or a name as the option `--data` takes it, whose images
            get their roles as in the jobs. Batches are (x, y, ...) or dicts with keys such as image and label. Of a
            DataLoader the dataset, collate_fn and processes are used; its sampler says which images count, not their
            order; batches, their order and a last one that is dropped are ice_ray's own.
        val: images to decide on, which the model was not trained on: in any of these forms.
        preprocessing: mean and std of uint8 images, one value a channel [default: ImageNet's]; floats go with neither.
            Padding and flips of training images [default: none, or as the jobs have it for a name].
        seed: of the roles of a name's images.
        progress: whether a bar shows how far reading is, where that takes more than a second. [default: in a notebook,
            and where standard error is a terminal]

    Raises:
        UserError: data that cannot be used, by the name of the argument, with the mend.

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> images, labels = torch.randn(40, 1, 28, 28), torch.arange(40) % 10
    >>> loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    >>> data = given_data(loader, (images, labels))
    >>> len(data.train), data.train.image_shape, data.train.dtype
    (40, (1, 28, 28), torch.float32)
    """
    check_preprocessing(preprocessing)
    if isinstance(train, (PruningData, str)) and val is not None:
        what = "PruningData" if isinstance(train, PruningData) else f"name '{train}'"
        raise UserError(f"val: train is {what}, which has validation images of its own: leave val out")
    if isinstance(train, PruningData):
        return train if preprocessing is None else dataclasses.replace(train, preprocessing=preprocessing)
    if isinstance(train, str):
        return _named(train, preprocessing, seed, progress)
    if val is None:
        raise UserError(
            "val: no validation images: give images that the model was not trained on, for example a part of them by "
            "torch.utils.data.random_split"
        )
    sources = given_images(train, "train", progress), given_images(val, "val", progress, hold=True)
    shapes, kinds = [source.image_shape for source in sources], [source.dtype for source in sources]
    if shapes[0] != shapes[1]:
        raise UserError(f"val: images have shape {shapes[1]}, and those of train {shapes[0]}: bring both to one size")
    if kinds[0] != kinds[1]:
        one, other = (str(kind).removeprefix("torch.") for kind in kinds)
        raise UserError(f"val: images are {other}, and those of train {one}: give both in one form")
    if len(sources[0]) < 2 or len(sources[1]) < 2:
        few = "train" if len(sources[0]) < 2 else "val"
        raise UserError(f"{few}: 1 image: at least 2 are needed")
    return PruningData(*sources, preprocessing or Preprocessing())


def given_images(given: Any, name: str, progress: bool | None = None, hold: bool = False) -> ImageSource:
    """The images of one argument, in any form that `given_data` takes.

    Args:
        name: the argument, for messages.
        progress: as `given_data`.
        hold: whether images that differ when read twice are held as they are read first, as those are that decide.

    Raises:
        UserError: as `given_data`.
    """
    if isinstance(given, ImageSource):
        found = Found(given, False)
    elif _is_of_ray(given):
        from ice_ray.ingest.in_process import read_ray_dataset  # here: the rest works without Ray

        found = read_ray_dataset(given, name, progress)
    elif isinstance(given, torch_data.DataLoader):
        found = _loaded(given, name, progress, hold)
    elif isinstance(given, torch_data.IterableDataset):
        found = Found(read_batches(torch_data.DataLoader(given, batch_size=64), name, progress), False)
    elif _is_pair(given):
        found = Found(image_set(given[0], given[1], name), False)
    elif isinstance(given, (tuple, list)) and given and _is_batch(given[0]):
        found = Found(read_batches(given, name, progress), False)
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, (Mapping, str, Path)):
        _check_items(given, name)
        found = read_items(Reader(name, given, range(len(given))), progress, hold)
    elif isinstance(given, Iterable) and not isinstance(given, (Mapping, str, Path)):
        found = Found(read_batches(given, name, progress), False)
    else:
        raise _refusal(given, name)
    if not len(found.images):
        raise UserError(f"{name}: there are no images in it")
    _warn(found, name, hold)
    return found.images


def _loaded(loader: torch_data.DataLoader[Any], name: str, progress: bool | None, hold: bool) -> Found:
    if not reads_by_key(loader):
        return Found(read_batches(loader, name, progress), False)
    reader, note = reader_of(loader, name)
    if note:
        warnings.warn(note, stacklevel=4)
    return read_items(reader, progress, hold)


def _named(name: str, preprocessing: Preprocessing | None, seed: int, progress: bool | None) -> PruningData:
    """The images of a name of the jobs', in the roles that they have there."""
    from ice_ray.ingest.datasets import open_dataset
    from ice_ray.ingest.in_process import read_rows
    from ice_ray.ingest.roles import assign_roles

    dataset = open_dataset(name)
    roles = assign_roles(dataset, "holdout", seed)
    train, validation = (
        read_rows(dataset, rows, f"data '{name}'", progress).images for rows in (roles.train, roles.validation)
    )
    pad, flip = dataset.usual_augmentation(train.image_shape)
    return PruningData(train, validation, preprocessing or Preprocessing(pad=pad, flip=flip))


def _warn(found: Found, name: str, hold: bool) -> None:
    if found.is_augmented and not hold:
        warnings.warn(
            f"{name}: items differ when they are read twice: they are augmented already, and are taken as they come, "
            "read anew for every epoch: runs may not repeat bit for bit (without its random transforms, and with "
            "Preprocessing(pad=4, flip=True), they do)",
            stacklevel=4,
        )
    elif found.is_augmented:
        kept = "held as they were read first" if isinstance(found.images, ImageSet) else "read anew for every pass"
        warnings.warn(
            f"{name}: items differ when they are read twice, and images that decide should not: they are {kept}; give "
            "them a transform without chance",
            stacklevel=4,
        )
    if isinstance(found.images, ImageSet) and found.images.dtype.is_floating_point:
        most = largest(found.images.images)
        if most > _LARGEST_USUAL:
            warnings.warn(
                f"{name}: float images are taken as they come, and these reach {most:g}: were they normalised as in "
                "training?",
                stacklevel=4,
            )


def _check_items(given: Any, name: str) -> None:
    """Raises UserError: a sequence that is no dataset."""
    if _is_array(given) or (isinstance(given, (tuple, list)) and given and _nesting(given[0]) == 3):
        raise UserError(f"{name}: images alone: give ({name}_images, {name}_labels)")
    if isinstance(given, (tuple, list)) and given and _is_array(given[0]):
        raise UserError(f"{name}: a {type(given).__name__} of {len(given)} {type(given[0]).__name__}s: give {_TAKEN}")


def _refusal(given: Any, name: str) -> UserError:
    if isinstance(given, Mapping):
        keys = ", ".join(str(key) for key in list(given)[:6])
        return UserError(f"{name}: a dict of {keys or 'nothing'}: give one of its parts, or (images, labels)")
    if isinstance(given, torch_data.Dataset):
        return UserError(f"{name}: {type(given).__name__} has no __len__, as a map-style Dataset has, nor __iter__")
    return UserError(f"{name} is of type {type(given).__name__}: give {_TAKEN}")


def _is_pair(given: Any) -> bool:
    """Whether it is (images, labels), not a list of two items."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        return False
    images, labels = given
    if _is_array(images):
        return images.ndim >= 3 and (_is_array(labels) or isinstance(labels, Sequence))
    return _nesting(images) in (3, 4) and (_is_array(labels) or _nesting(labels) in (1, 2))


def _is_batch(item: Any) -> bool:
    """Whether what a list holds are batches, (images, labels) each, not items."""
    if not isinstance(item, (tuple, list, Mapping)):
        return False
    try:
        images, labels = pair_of(item, "")
    except UserError:
        return False
    return axes(images) == 4 and axes(labels) >= 1


def _nesting(given: Any) -> int:
    """How many lists lie in one another, around a number; 0 where there is none in them."""
    depth = 0
    while isinstance(given, list) and given:
        depth, given = depth + 1, given[0]
    return depth if isinstance(given, (int, float)) else 0


def _is_array(given: Any) -> bool:
    return isinstance(given, (Tensor, np.ndarray))


def _is_of_ray(given: Any) -> bool:
    """Whether it is Ray Data's, without loading Ray where nobody has."""
    ray_data = sys.modules.get("ray.data")
    return ray_data is not None and isinstance(given, ray_data.Dataset)
