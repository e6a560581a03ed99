"""Decoding rows with Ray Data, once, into arrays that every process of the cluster reads from shared memory."""

from __future__ import annotations

import logging
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
from ice_ray.ingest.roles import Rows

DataErrors = Literal["stop", "skip"]
_ROWS_PER_TASK = 2500


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


def load(dataset: Dataset, rows: Rows, errors: DataErrors) -> LoadedImages:
    """Decode `rows` over the cluster and put them into the object store, in the rows' own order.

    Raises:
        DataError: an image is corrupt (named by file and row) and `errors` is `stop`; images differ in size; none
            is left; they do not fit into the object store.
    """
    pieces = dict(_decoded(dataset, rows))
    faults = {index: piece for index, piece in pieces.items() if isinstance(piece, str)}
    if faults and errors == "stop":
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{faults[min(faults)]}{more}; mend or remove it, or go on without: --data-errors skip")
    kept = [index for index in range(len(rows)) if index not in faults]
    if not kept:
        raise DataError(f"no image of split {rows.split} could be decoded: {faults[min(faults)]}")
    shapes = {piece.shape for piece in pieces.values() if not isinstance(piece, str)}
    if len(shapes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width, _ in sorted(shapes)[:3])
        raise DataError(f"images differ in size ({shown}, ...); bring them to one with --image-size N")
    images = np.stack([pieces[index] for index in kept])
    labels = dataset.labels[rows.split][rows.indices[kept]]
    _check_room(images)
    height, width, _ = images.shape[1:]
    skipped = tuple(faults[index] for index in sorted(faults))
    return LoadedImages(ray.put(images), ray.put(labels), len(kept), (3, height, width), skipped)


def _decoded(dataset: Dataset, rows: Rows) -> Iterator[tuple[int, NDArray[np.uint8] | str]]:
    """(position in rows, pixels or fault), in whatever order the tasks end."""
    _quiet()
    reference, indices = ray.put(dataset), ray.put(rows.indices)
    split = rows.split
    starts = range(0, len(rows), _ROWS_PER_TASK)
    spans = [{"start": start, "stop": min(start + _ROWS_PER_TASK, len(rows))} for start in starts]

    def read(span: dict[str, Any]) -> dict[str, Any]:
        start, stop = int(span["start"][0]), int(span["stop"][0])
        source: Dataset = ray.get(reference)
        pixels, faults = _of_one_size(list(source.read(split, ray.get(indices)[start:stop])))
        return {"position": np.arange(start, stop), "pixels": pixels, "fault": faults}

    decoded = ray.data.from_items(spans, override_num_blocks=len(spans)).map_batches(read, batch_size=1)
    for batch in decoded.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
        for position, pixels, fault in zip(batch["position"], batch["pixels"], batch["fault"], strict=True):
            yield int(position), str(fault) if fault else pixels


def _of_one_size(found: list[RowImage]) -> tuple[NDArray[np.uint8], list[str]]:
    """The rows as one array, blank where there is a fault, and each row's fault (empty where there is none)."""
    shape = next((row.pixels.shape for row in found if row.pixels is not None), (1, 1, 3))
    pixels, faults = np.zeros((len(found), *shape), dtype=np.uint8), []
    for position, row in enumerate(found):
        fault = row.error
        if row.pixels is not None and row.pixels.shape == shape:
            pixels[position] = row.pixels
        elif row.pixels is not None:
            sizes = f"{row.pixels.shape[1]}x{row.pixels.shape[0]} where others are {shape[1]}x{shape[0]}"
            fault = f"{row.name}: image is {sizes}, bring them to one size with --image-size N"
        faults.append(fault)
    return pixels, faults


def _check_room(images: NDArray[np.uint8]) -> None:
    room = ray.cluster_resources().get("object_store_memory", 0.0)
    if images.nbytes > 0.8 * room:
        raise DataError(
            f"{len(images)} images take {images.nbytes / 1e9:.1f} GB, the object store has {room / 1e9:.1f} GB: take "
            "fewer (--replay.subsample, --search.subsample) or a smaller --image-size"
        )


def _quiet() -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # first: it warns of what the next lines ask for
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
