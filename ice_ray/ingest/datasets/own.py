"""The user's own images: whatever their `package.module:function` makes Ray Data datasets of."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray
from PIL import Image

from ice_ray.errors import DataError, OwnCodeError, UserError
from ice_ray.guard import guarded, is_installed, shown
from ice_ray.ingest.datasets.base import SPLITS, Dataset, Labels, Pixels, RowImage, numbered
from ice_ray.ingest.datasets.decode import UnknownRangeError, decode, fill, scaled, to_rgb
from ice_ray.ingest.datasets.labels import number_of
from ice_ray.ingest.quiet import quiet_ray_data

_SCHEMA = pa.schema(
    {
        "image": pa.large_binary(),
        "height": pa.int32(),
        "width": pa.int32(),
        "channels": pa.int32(),  # null: 3
        "is_float": pa.bool_(),  # null: uint8
        "label": pa.int64(),
        "fault": pa.string(),
    }
)
_FEW_CHANNELS = (1, 3, 4)
_LARGEST = {np.dtype(bool): 1, np.dtype(np.uint16): 65535}  # of kinds whose whole range pixels have; uint8 is as it is
_FRAME = re.compile(r'  File "(.+)", line (\d+), in ')
_NAMES = "class_names"
_RETURNS = '{"train": ray.data.Dataset, "val" and/or "test": ...}'


class OwnDataset(Dataset):
    """What a function of the user's returns: a dict of splits, each a `ray.data.Dataset`.

    Columns: `image`, and `label`, integers from 0 or names of classes. An image is the bytes of an image file, which
    become RGB, or an array: uint8 or uint16 (H, W, C), or (H, W), which becomes RGB; or floats (H, W, C) that are
    normalised already, in all splits or in none. The dict may also hold `class_names`, one a class. Ray must be
    running: the datasets are executed once, here, in their own order, and read by reference ever after. A reader starts
    no execution, so it cannot wait for CPUs.
    """

    def __init__(self, name: str, function: Callable[[], Any], image_size: int | None = None) -> None:
        self._name, self._size = name, image_size
        returned = _call(name, function)
        names = _names(name, returned.get(_NAMES))
        self._blocks: dict[str, list[ray.ObjectRef[pa.Table]]] = {}
        self._starts: dict[str, NDArray[np.int64]] = {}
        self.labels = {}
        kinds: set[bool] = set()
        for split in SPLITS:
            if split in returned:
                self._blocks[split] = _materialise(f"data '{name}', split {split}", returned[split], names)
                heads = ray.get([_head.remote(block) for block in self._blocks[split]])
                self._starts[split] = np.cumsum([0, *(len(head.labels) for head in heads)])
                self.labels[split] = _checked(f"data '{name}', split {split}", heads)
                kinds |= {kind for head in heads for kind in head.are_floats}
        if len(kinds) == 2:
            raise DataError(f"data '{name}': some images are floats and some are bytes; give one kind in all splits")
        self.dtype = np.dtype(np.float32 if True in kinds else np.uint8)
        self.class_names = names or numbered(int(self.labels["train"].max(initial=-1)))
        self.leave_out_unlabelled()
        self.check_labels(f"data '{name}'")
        self.note_classes_without_images()

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        starts = self._starts[split]
        owners = np.searchsorted(starts, rows, side="right") - 1
        for owner in dict.fromkeys(owners.tolist()):
            own = rows[owners == owner]
            table = ray.get(self._blocks[split][owner]).take(pa.array(own - starts[owner]))
            for row, stored in zip(own, table.to_pylist(), strict=True):
                yield _decoded(f"data '{self._name}', split {split}, row {row}", stored, self._size)


def _call(name: str, function: Callable[[], Any]) -> Mapping[str, Any]:
    """What the function returns, its kind checked."""
    quiet_ray_data(logging.CRITICAL)  # faults of the user's are told in one line
    try:
        with guarded(name, "data"):
            returned = function()
    except ray.exceptions.RayTaskError as error:  # it has run a dataset
        raise OwnCodeError(f"data '{name}' raised {_reason(error)}", str(error)) from error
    if not isinstance(returned, Mapping):
        raise UserError(f"data '{name}' returned {type(returned).__name__}; it must return {_RETURNS}")
    unknown = [key for key in returned if key not in (*SPLITS, _NAMES)]
    if unknown or "train" not in returned:
        fault = f"a split {unknown[0]!r}" if unknown else "no split 'train'"
        raise UserError(f"data '{name}' returned {fault}; it must return {_RETURNS}")
    for split in SPLITS:
        if split in returned and not isinstance(returned[split], ray.data.Dataset):
            kind = type(returned[split]).__name__
            raise UserError(f"data '{name}' returned {kind} as split {split}; it must return {_RETURNS}")
    return returned


def _names(name: str, given: Any) -> tuple[str, ...]:
    """The classes' names, as the function gives them, or none.

    Raises:
        UserError: they are no list.
    """
    if given is None:
        return ()
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise UserError(f"data '{name}' returned {type(given).__name__} as {_NAMES}; give a list, one name a class")
    return tuple(str(each) for each in given)


def _materialise(origin: str, dataset: ray.data.Dataset, names: tuple[str, ...]) -> list[ray.ObjectRef[pa.Table]]:
    """Run the dataset once; its rows in order, in blocks of `_SCHEMA` in the object store."""
    normalised = partial(_normalised, names=names)
    try:
        normal = dataset.map_batches(normalised, batch_format="numpy", batch_size=None, zero_copy_batch=True)
        normal.context.execution_options.preserve_order = True
        return list(normal.materialize().to_arrow_refs())
    except Exception as error:  # reading and the user's own functions may raise anything
        raise OwnCodeError(f"{origin}: {_reason(error)}", str(error)) from error


def _normalised(batch: dict[str, Any], names: tuple[str, ...]) -> pa.Table:
    """The rows as they are kept: RGB bytes with height and width, or a file's bytes without; or what is wrong."""
    missing = [column for column in ("image", "label") if column not in batch]
    if missing:
        fault = f"no column named {missing[0]}; it has {sorted(batch)}"
        return pa.Table.from_pylist([{"fault": fault}], schema=_SCHEMA)
    rows = [
        normal_image(image) | _normal_label(label, names)
        for image, label in zip(batch["image"], batch["label"], strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def normal_image(image: Any) -> dict[str, Any]:
    """An image as it is kept: the bytes of a file, or RGB pixels of eight bits with height and width; or its fault."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if content is None:
        return {"fault": "no image"}
    if isinstance(content, (bytes, bytearray, memoryview)):
        return {"image": bytes(content)}
    try:
        pixels = np.asarray(to_rgb(content) if isinstance(content, Image.Image) else content)
    except UnknownRangeError as error:
        return {"fault": str(error)}
    if (largest := _LARGEST.get(pixels.dtype.newbyteorder("="))) is not None:
        pixels = scaled(pixels, largest)
    is_float = pixels.dtype.kind == "f" and pixels.ndim == 3
    if is_float:
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            return {"fault": "image holds NaN or infinity"}
    elif pixels.dtype != np.uint8:
        return {
            "fault": f"image is {pixels.dtype} of shape {pixels.shape}; give uint8 pixels, 0 to 255, normalised floats "
            "(height, width, channels), or the bytes of an image file"
        }
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or 0 in pixels.shape or _channels_come_first(pixels.shape):
        return {"fault": f"image has shape {pixels.shape}; give (height, width, channels) or (height, width)"}
    height, width, channels = pixels.shape
    found = {"image": pixels.tobytes(), "height": height, "width": width}
    return found | ({"channels": channels} if channels != 3 else {}) | ({"is_float": True} if is_float else {})


def _channels_come_first(shape: tuple[int, ...]) -> bool:
    return shape[0] in _FEW_CHANNELS and shape[2] > max(_FEW_CHANNELS)


def _normal_label(label: Any, names: tuple[str, ...]) -> dict[str, Any]:
    number = number_of(label, names)
    return {"fault": number} if isinstance(number, str) else {"label": number}


@dataclass(frozen=True)
class _Head:
    """What is known of a block without its images.

    Attributes:
        labels: -1 where there is none.
        fault: what is wrong with the first of those.
        are_floats: whether its images are, of those that there are; both, where they are of two kinds.
    """

    labels: Labels
    fault: str
    are_floats: frozenset[bool]


@ray.remote
def _head(block: pa.Table) -> _Head:
    labels, faults = block.column("label"), block.column("fault").to_pylist()
    first = next((fault for label, fault in zip(labels.to_pylist(), faults, strict=True) if label is None), "")
    images = block.column("image").is_valid().to_pylist()
    floats = block.column("is_float").fill_null(False).to_pylist()
    kinds = frozenset(is_float for is_float, is_there in zip(floats, images, strict=True) if is_there)
    return _Head(np.asarray(labels.fill_null(-1).to_numpy(), dtype=np.int64), str(first), kinds)


def _checked(origin: str, heads: list[_Head]) -> Labels:
    fault = next((head.fault for head in heads if head.fault), "")
    if fault:
        raise DataError(f"{origin}: {fault}")
    return np.concatenate([np.zeros(0, np.int64), *(head.labels for head in heads)])


def _decoded(name: str, stored: dict[str, Any], size: int | None) -> RowImage:
    if stored["image"] is None:
        return RowImage(name, None, f"{name}: {stored['fault']}")
    if stored["height"] is None:
        return decode(name, stored["image"], size)
    shape = stored["height"], stored["width"], stored["channels"] or 3
    flat: Pixels = np.frombuffer(stored["image"], dtype=np.float32 if stored["is_float"] else np.uint8)
    pixels = flat.reshape(shape)
    if size is None or shape[:2] == (size, size):
        return RowImage(name, pixels)
    if stored["is_float"] or shape[2] != 3:
        kind = "floats" if stored["is_float"] else f"{shape[2]} channels"
        return RowImage(name, None, f"{name}: images of {kind} cannot be fitted to a size; leave the image size out")
    return RowImage(name, np.asarray(fill(Image.fromarray(pixels), size)))


def _reason(error: Exception) -> str:
    """What the user's code said, in one line: out of a remote traceback the first exception, which is theirs."""
    if not isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    theirs = str(error).split("\nThe above exception")[0].strip().splitlines()
    said = [line for line in theirs if line and not line.startswith((" ", "Traceback", "\x1b"))]
    return (said[0] if said else type(error).__name__) + _line_of(theirs)


def _line_of(traceback: list[str]) -> str:
    """Where in the user's files it was raised, of a traceback in text."""
    found = (_FRAME.match(line) for line in reversed(traceback))
    lines = ((Path(frame[1]), frame[2]) for frame in found if frame is not None)
    return next((f" ({shown(file)}:{number})" for file, number in lines if not is_installed(file)), "")
