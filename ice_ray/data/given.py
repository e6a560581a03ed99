"""Images and labels as users have them, in the form in which they are stored; what is wrong is said in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ice_ray.data.images import ImageSet
from ice_ray.errors import UserError
from ice_ray.wording import counted

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "pixels", "x", "input", "inputs")
LABEL_KEYS = ("label", "labels", "target", "targets", "fine_label", "class", "y")
_FEW_CHANNELS = (1, 3, 4)
_SHOWN = 8  # keys, in a message


def pair_of(batch: Any, name: str) -> tuple[Any, Any]:
    """The images and the labels of a batch, or of an item: (x, y, ...), a list, or a dict.

    Args:
        name: the argument that it comes from, for messages.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(batch, Mapping):
        found = [next((key for key in keys if key in batch), None) for keys in (IMAGE_KEYS, LABEL_KEYS)]
        for what, keys, key in zip(("images", "labels"), (IMAGE_KEYS, LABEL_KEYS), found, strict=True):
            if key is None:
                shown = ", ".join(str(each) for each in list(batch)[:_SHOWN])
                raise UserError(f"{name}: no key for the {what} ({', '.join(keys)}) in a dict of {shown or 'nothing'}")
        return batch[found[0]], batch[found[1]]
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        if isinstance(batch[0], Mapping) or (isinstance(batch[0], (tuple, list)) and _differ(batch[0])):
            raise UserError(f"{name}: collate_fn returns a list of items: it must stack them to (images, labels)")
        return batch[0], batch[1]
    given = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
    raise UserError(f"{name}: a batch is {given}: give (images, labels), or a dict with image and label")


def image_set(images: Any, labels: Any, name: str, places: Sequence[Any] | int = 0) -> ImageSet:
    """A batch in the form in which it is stored, its memory its own or the user's.

    Args:
        images: uint8 (N, C, H, W) or (N, H, W, C), told apart by which of the two has fewer; floats (N, C, H, W); or
            (N, H, W), of one channel.
        labels: whole numbers from 0, (N,) or (N, 1).
        places: what each image is called in messages, or the number of the first.

    Raises:
        UserError: images or labels that are no such, images with NaN or infinity, or another number of labels.
    """
    stored = stored_images(images, name)
    numbers = stored_labels(labels, name)
    if len(stored) != len(numbers):
        found = f"{counted(len(stored), 'image')} {_shape(images)} and {counted(len(numbers), 'label')}"
        raise UserError(f"{name}: {found}: one length is needed")
    if stored.dtype == torch.float32 and len(stored):
        spoilt = ~torch.isfinite(stored.flatten(1)).all(dim=1)
        if bool(spoilt.any()):
            raise UserError(f"{name}: {_placed(places, int(spoilt.nonzero()[0]))} holds NaN or infinity")
    if len(numbers) and int(numbers.min()) < 0:
        where = _placed(places, int(numbers.argmin()))
        raise UserError(f"{name}: {where} has the label {int(numbers.min())}: classes count from 0")
    return ImageSet(stored, numbers)


def stored_images(given: Any, name: str) -> Tensor:
    """uint8 or float32, (N, H, W, C), on the CPU.

    Raises:
        UserError: they cannot be.
    """
    images = _tensor(given, name, "images")
    if images.dtype.is_floating_point:
        images = images.float()
    elif images.dtype != torch.uint8:
        kind = str(images.dtype).removeprefix("torch.")
        raise UserError(f"{name}: images are {kind}: give uint8 from 0 to 255, or floats that are normalised")
    if images.ndim == 3:
        images = images[..., None]  # of one channel
    elif images.ndim == 4:
        images = images.permute(0, 2, 3, 1) if _channels_come_first(images, name) else images
    else:
        raise UserError(
            f"{name}: a batch of images has shape {_shape(images)}: give (N, C, H, W); where a dataset's items are "
            "batches, a DataLoader of it with batch_size=None"
        )
    if 0 in images.shape[1:]:
        raise UserError(f"{name}: images of shape {_shape(given)} have no pixels")
    return images.contiguous()


def stored_labels(given: Any, name: str) -> Tensor:
    """int64 (N,), on the CPU.

    Raises:
        UserError: they are no class numbers.
    """
    labels = _tensor(given, name, "labels")
    if labels.ndim == 2 and labels.shape[1] > 1:
        total = labels.sum(dim=1)
        if bool((labels >= 0).all()) and torch.allclose(total.double(), torch.ones((), dtype=torch.float64)):
            raise UserError(
                f"{name}: labels {_shape(labels)} are one-hot or soft: give class numbers, labels.argmax(1)"
            )
        raise UserError(f"{name}: labels {_shape(labels)} are several an image: give (N,), one class number an image")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{name}: labels have shape {_shape(labels)}: give (N,), one class number an image")
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        kind = str(labels.dtype).removeprefix("torch.")
        raise UserError(f"{name}: labels are {kind}: give class numbers, whole numbers from 0 (labels.long())")
    return labels.long()


def _channels_come_first(images: Tensor, name: str) -> bool:
    """Whether four axes are (N, C, H, W), not (N, H, W, C)."""
    first, last = images.shape[1], images.shape[3]
    if images.dtype == torch.uint8:
        if first == last:
            raise UserError(
                f"{name}: of uint8 images {_shape(images)} nobody can say which axis is the channels': give "
                "ImageSet(images, labels) with images (N, H, W, C)"
            )
        return first < last
    if last in _FEW_CHANNELS and first > max(_FEW_CHANNELS):
        raise UserError(
            f"{name}: float images {_shape(images)} look like (N, H, W, C): give (N, C, H, W) as torch has it, "
            "images.permute(0, 3, 1, 2), or ImageSet(images, labels)"
        )
    return True


def _tensor(given: Any, name: str, what: str) -> Tensor:
    if isinstance(given, (list, tuple, range)):
        given = _joined(given, name, what)
    if isinstance(given, Tensor):
        if given.layout != torch.strided or given.is_quantized or given.device.type == "meta":
            raise UserError(f"{name}: {what} are a {given.layout} tensor on {given.device}: give a dense one")
        return given.detach().cpu()
    if isinstance(given, np.ndarray):
        try:
            if not given.dtype.isnative:
                given = given.astype(given.dtype.newbyteorder("="))
            return torch.from_numpy(np.ascontiguousarray(given) if given.flags.writeable else given.copy())
        except TypeError:  # of numbers that torch does not have, or of no numbers
            given = given.flat[0] if given.dtype == object and given.size else given
    raise _refusal(given, name, what)


def _joined(given: Sequence[Any], name: str, what: str) -> Any:
    """A list of images or of labels, as one tensor or array."""
    if given and type(given[0]).__module__.startswith("PIL."):
        return given[0]
    if what == "images" and _holds_tensors_within(given):
        # What torch's collate makes of items whose images are lists.
        raise UserError(f"{name}: images are nested lists: give tensors, torch.tensor(image) in its __getitem__")
    if given and all(isinstance(each, Tensor) for each in given):
        shapes = {tuple(each.shape) for each in given}
        if len(shapes) > 1:
            one, other = sorted(shapes)[:2]
            raise UserError(f"{name}: {what} of sizes {one} and {other}: {_ONE_SIZE}")
        return torch.stack(list(given))
    try:
        return np.asarray(given)
    except ValueError as error:
        raise UserError(f"{name}: {what} of several sizes: {_ONE_SIZE}") from error


def _holds_tensors_within(given: Sequence[Any]) -> bool:
    """Whether lists of lists end in tensors."""
    inner, depth = given, 0
    while isinstance(inner, (list, tuple)) and inner:
        inner, depth = inner[0], depth + 1
    return depth > 1 and isinstance(inner, Tensor)


_ONE_SIZE = "bring all to one (Resize and CenterCrop in the transform)"


def _refusal(given: Any, name: str, what: str) -> UserError:
    """What is said of something that is neither a tensor nor an array of numbers."""
    if isinstance(given, np.ndarray):
        said = f"an array of {given.dtype}"
    else:
        said = f"of type {type(given).__module__.partition('.')[0]}.{type(given).__name__}"
    if what == "labels":
        return UserError(f"{name}: labels are {said}: give class numbers, whole numbers from 0")
    if type(given).__module__.startswith("PIL."):
        return UserError(
            f"{name}: images are PIL's: its transform lacks ToTensor() and Normalize(mean, std); or PILToTensor(), "
            "and mean and std in preprocessing"
        )
    return UserError(f"{name}: images are {said}: give tensors")


def _differ(item: Sequence[Any]) -> bool:
    """Whether it is an item, an image and its label, and not a list of images."""
    return len({axes(each) for each in item}) > 1


def axes(value: Any) -> int:
    """How many a tensor or an array has; 1 of a list, whatever is in it."""
    own = getattr(value, "ndim", None)
    return own if isinstance(own, int) else int(isinstance(value, (list, tuple, range)))


def _placed(places: Sequence[Any] | int, number: int) -> str:
    return f"image {places + number if isinstance(places, int) else places[number]}"


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else "in a list"


def largest(images: Tensor) -> float:
    """The largest value of float32 images, by its size."""
    return max(map(abs, map(float, images.aminmax()))) if images.numel() else -math.inf
