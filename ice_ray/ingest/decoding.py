"""Decoding rows of a dataset with Ray Data, a span of rows a task, on whatever nodes have room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray

from ice_ray.errors import UserError
from ice_ray.ingest.datasets.base import Dataset, Pixels, RowImage
from ice_ray.ingest.quiet import quiet_ray_data
from ice_ray.ingest.roles import Rows

RESIZE = "bring all to one size (image-size)"
_ROWS_PER_TASK = 2500
_BYTES_PER_TASK = 256 * 1024**2
_ATTEMPTS = 4
Shape = tuple[int, ...]


@dataclass(frozen=True)
class DecodedSpan:
    """Consecutive rows: where they start, their pixels (zeros where there was a fault; none, if they were not to be
    kept), what was wrong with each (nothing, mostly), a digest of the pixels.
    """

    start: int
    pixels: Pixels
    faults: list[str]
    digest: bytes


def decode_rows(dataset: Dataset, rows: Rows, shape: Shape, keep: bool) -> Iterator[DecodedSpan]:
    """Every row once, in whatever order the tasks end.

    A node that leaves in good order may report that this process, whose objects its tasks read, has died (a fault of
    Ray, up to 2.60 at least): what is missing then is decoded again.

    Args:
        shape: (H, W, C) that every image must have; one of another has a fault.
        keep: whether the pixels are wanted.

    Raises:
        UserError: the code of the dataset is not on a node.
    """
    quiet_ray_data()
    reference, indices = ray.put(dataset), ray.put(rows.indices)
    split = rows.split
    length = max(1, min(_ROWS_PER_TASK, _BYTES_PER_TASK // (int(np.prod(shape)) * dataset.dtype.itemsize)))
    missing = dict.fromkeys(range(0, len(rows), length))

    def read(span: dict[str, Any]) -> dict[str, Any]:
        start = int(span["start"][0])
        try:
            found = ray.get(reference)
        except ray.exceptions.RaySystemError as error:  # Ray Data would try again for ever if it got out of here
            return {"start": [start], "pixels": [()], "faults": [()], "digest": [b""], "unknown": [str(error)]}
        pixels, faults = decode_span(found, split, ray.get(indices)[start : start + length], shape)
        digest = hashlib.blake2b(pixels.data, digest_size=16).digest()
        kept = pixels if keep else pixels[:0]
        return {"start": [start], "pixels": [kept], "faults": [faults], "digest": [digest], "unknown": [""]}

    for attempt in range(_ATTEMPTS):
        spans = ray.data.from_items([{"start": start} for start in missing], override_num_blocks=len(missing))
        try:
            for row in spans.map_batches(read, batch_size=1).iter_rows():
                if row["unknown"]:
                    reason = str(row["unknown"]).partition("\n")[0].removeprefix("System error: ")
                    raise UserError(f"data: a node does not know the dataset ({reason}): install it on every node")
                del missing[start := int(row["start"])]
                yield DecodedSpan(start, row["pixels"], [str(fault) for fault in row["faults"]], row["digest"])
        except ray.exceptions.OwnerDiedError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def decode_span(dataset: Dataset, split: str, rows: NDArray[np.int64], shape: Shape) -> tuple[Pixels, list[str]]:
    """Rows in ascending order: (n, H, W, C) of the dataset's type, and what was wrong with each, if anything."""
    pixels: Pixels = np.zeros((len(rows), *shape), dtype=dataset.dtype)
    faults = []
    for place, row in enumerate(dataset.read(split, rows)):
        fault = _fault(row, shape)
        faults.append(fault)
        if not fault and row.pixels is not None:
            pixels[place] = row.pixels
    return pixels, faults


def _fault(row: RowImage, shape: Shape) -> str:
    if row.pixels is None or row.pixels.shape == shape:
        return row.error
    if row.pixels.shape[2] != shape[2]:
        return f"{row.name}: image has {row.pixels.shape[2]} channels where the first one has {shape[2]}; {RESIZE}"
    sizes = f"{row.pixels.shape[1]}x{row.pixels.shape[0]} where the first one is {shape[1]}x{shape[0]}"
    return f"{row.name}: image is {sizes}; {RESIZE}"
