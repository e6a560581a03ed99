"""Decoding rows with Ray Data, once, into arrays that every process of the cluster reads from shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from ice_ray.data.images import ImageSet
from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, RowImage
from ice_ray.ingest.quiet import quiet_ray_data
from ice_ray.ingest.roles import Rows

DataErrors = Literal["stop", "skip"]
_ROWS_PER_TASK = 2500
_RESIZE = "bring all to one size with --image-size N"


@dataclass(frozen=True)
class LoadedImages:
    """Decoded images in the object store: uint8 (N, H, W, 3) and int64 (N,), zero-copy wherever they are read.

    Attributes:
        skipped: what was wrong with rows that were left out, a line each.
    """

    images: ray.ObjectRef[Any]
    labels: ray.ObjectRef[Any]
    count: int
    image_shape: tuple[int, int, int]
    skipped: tuple[str, ...]

    def get(self) -> ImageSet:
        """The images on the CPU, over the object store's own memory. Needs no CPU of the cluster."""
        images, labels = ray.get([self.images, self.labels])
        return ImageSet.from_numpy(images, labels)


def load(dataset: Dataset, rows: Rows, errors: DataErrors, image_shape: tuple[int, int, int]) -> LoadedImages:
    """Decode `rows` over the cluster and put them into the object store, in the rows' own order.

    Args:
        image_shape: (C, H, W) that every image must have.

    Raises:
        DataError: an image is corrupt (named by file and row) and `errors` is `stop`; one is of another size; none is
            left; they would not fit into the object store.
    """
    channels, height, width = image_shape
    _check_room(len(rows), height * width * channels)
    images = np.zeros((len(rows), height, width, channels), dtype=np.uint8)
    faults: dict[int, str] = {}
    for position, pixels, fault in _decoded(dataset, rows, images.shape[1:]):
        if fault:
            faults[position] = fault
        else:
            images[position] = pixels
    odd = [faults[position] for position in sorted(faults) if faults[position].endswith(_RESIZE)]
    if odd:
        raise DataError(odd[0])
    if faults and errors == "stop":
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{faults[min(faults)]}{more}; mend or remove it, or go on without: --data-errors skip")
    if len(faults) == len(rows):
        raise DataError(f"no image of split {rows.split} could be decoded: {faults[min(faults)]}")
    kept = np.setdiff1d(np.arange(len(rows)), list(faults))
    labels = dataset.labels[rows.split][rows.indices[kept]]
    skipped = tuple(faults[position] for position in sorted(faults))
    return LoadedImages(ray.put(images[kept] if faults else images), ray.put(labels), len(kept), image_shape, skipped)


def _decoded(dataset: Dataset, rows: Rows, shape: tuple[int, ...]) -> Iterator[tuple[int, NDArray[np.uint8], str]]:
    """(position in rows, pixels, fault or nothing), in whatever order the tasks end."""
    quiet_ray_data()
    reference, indices = ray.put(dataset), ray.put(rows.indices)
    split = rows.split
    starts = range(0, len(rows), _ROWS_PER_TASK)
    spans = [{"start": start, "stop": min(start + _ROWS_PER_TASK, len(rows))} for start in starts]

    def read(span: dict[str, Any]) -> dict[str, Any]:
        start, stop = int(span["start"][0]), int(span["stop"][0])
        source: Dataset = ray.get(reference)
        found = list(source.read(split, ray.get(indices)[start:stop]))
        blank = np.zeros(shape, dtype=np.uint8)
        faults = [_fault(row, shape) for row in found]
        pixels = [
            blank if fault or row.pixels is None else row.pixels for row, fault in zip(found, faults, strict=True)
        ]
        return {"position": np.arange(start, stop), "pixels": np.stack(pixels), "fault": faults}

    decoded = ray.data.from_items(spans, override_num_blocks=len(spans)).map_batches(read, batch_size=1)
    for batch in decoded.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        for position, pixels, fault in zip(batch["position"], batch["pixels"], batch["fault"], strict=True):
            yield int(position), pixels, str(fault)


def _fault(row: RowImage, shape: tuple[int, ...]) -> str:
    if row.pixels is None or row.pixels.shape == shape:
        return row.error
    sizes = f"{row.pixels.shape[1]}x{row.pixels.shape[0]} where the first one is {shape[1]}x{shape[0]}"
    return f"{row.name}: image is {sizes}; {_RESIZE}"


def _check_room(count: int, bytes_each: int) -> None:
    room = ray.cluster_resources().get("object_store_memory", 0.0)
    if count * bytes_each > 0.8 * room:
        raise DataError(
            f"{count} images take {count * bytes_each / 1e9:.1f} GB, the object store has {room / 1e9:.1f} GB: take "
            "fewer (--replay.subsample, --search.subsample) or a smaller --image-size"
        )
