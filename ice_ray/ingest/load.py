"""A stage's images: decoded once into arrays that every process reads from shared memory, or streamed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray

from ice_ray.data.images import ImageSet
from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.decoding import RESIZE, decode_rows
from ice_ray.ingest.roles import Rows
from ice_ray.ingest.stream import ImageStream

DataErrors = Literal["stop", "skip"]
Placement = Literal["auto", "memory", "stream"]
_SHARE_OF_STORE = 0.5  # training and validation images lie there together


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


@dataclass(frozen=True)
class StreamedImages:
    """Images that stay encoded where the dataset has them, and are decoded by the cluster for every pass over them.

    Attributes:
        dataset: in the object store.
        indices: rows of `split`, in the object store; those that cannot be decoded are not among them.
        digest: of all pixels and labels.
    """

    dataset: ray.ObjectRef[Any]
    split: str
    indices: ray.ObjectRef[Any]
    count: int
    image_shape: tuple[int, int, int]
    skipped: tuple[str, ...]
    digest: str

    def get(self) -> ImageStream:
        """The images, as batches that Ray Data decodes ahead of their use."""
        dataset, indices = ray.get([self.dataset, self.indices])
        return ImageStream(dataset, self.dataset, self.split, indices, self.image_shape, self.digest)


StageImages = LoadedImages | StreamedImages


def load(
    dataset: Dataset, rows: Rows, errors: DataErrors, image_shape: tuple[int, int, int], placement: Placement = "auto"
) -> StageImages:
    """Decode `rows` over the cluster and put them into the object store, in the rows' own order.

    Where they would not fit there they are decoded once to see that they can be, and streamed later.

    Args:
        image_shape: (C, H, W) that every image must have.
        placement: `memory` and `stream` choose between the two.

    Raises:
        DataError: an image is corrupt (named by file and row) and `errors` is `stop`; one is of another size; none is
            left.
        UserError: the code of the dataset is not on a node.
    """
    channels, height, width = image_shape
    streams = placement == "stream" or (placement == "auto" and not fits(len(rows), image_shape))
    images = None if streams else np.zeros((len(rows), height, width, channels), dtype=np.uint8)
    faults: dict[int, str] = {}
    digests: dict[int, bytes] = {}
    for decoded in decode_rows(dataset, rows, (height, width, channels), keep=not streams):
        faults |= {decoded.start + place: fault for place, fault in enumerate(decoded.faults) if fault}
        digests[decoded.start] = decoded.digest
        if images is not None:
            images[decoded.start : decoded.start + len(decoded.pixels)] = decoded.pixels
    _check(faults, rows, errors)
    kept = np.setdiff1d(np.arange(len(rows)), list(faults))
    skipped = tuple(faults[position] for position in sorted(faults))
    indices = rows.indices[kept]
    labels = dataset.labels[rows.split][indices]
    if images is not None:
        own = images[kept] if faults else images
        return LoadedImages(ray.put(own), ray.put(labels), len(kept), image_shape, skipped)
    digest = hashlib.blake2b(labels.tobytes() + b"".join(digests[start] for start in sorted(digests)), digest_size=16)
    shared = ray.put(dataset), ray.put(indices)
    return StreamedImages(shared[0], rows.split, shared[1], len(kept), image_shape, skipped, digest.hexdigest())


def fits(count: int, image_shape: tuple[int, int, int]) -> bool:
    """Whether that many decoded images would leave room in the object store of every node that may read them."""
    room = min(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"])
    return count * math.prod(image_shape) <= _SHARE_OF_STORE * float(room)


def _check(faults: dict[int, str], rows: Rows, errors: DataErrors) -> None:
    """Raises DataError: the run cannot go on without the rows that have faults."""
    odd = [faults[position] for position in sorted(faults) if faults[position].endswith(RESIZE)]
    if odd:
        raise DataError(odd[0])
    if faults and errors == "stop":
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise DataError(f"{faults[min(faults)]}{more}; mend or remove it, or go on without (data-errors skip)")
    if len(faults) == len(rows):
        raise DataError(f"no image of split {rows.split} could be decoded: {faults[min(faults)]}")
