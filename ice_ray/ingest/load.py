"""A stage's images: decoded once into shared memory, or streamed: decoded anew for every pass."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.data.placement import tensor_to_device
from ice_ray.errors import DataError
from ice_ray.ingest.config import DataErrors, Placement
from ice_ray.ingest.datasets.base import Dataset, Pixels
from ice_ray.ingest.decoding import RESIZE, decode_rows, decode_span
from ice_ray.ingest.quiet import quiet_ray_data
from ice_ray.ingest.roles import Rows

_BYTES_PER_TASK = 64 * 1024**2
_MOST_ROWS_PER_TASK = 2048
_MOST_TASKS_AT_ONCE = 4


class ImageStream(ImageSource):
    """Rows of a dataset, decoded by Ray Data tasks a few ahead of the batch in use, wherever the cluster has room.

    The tasks ask for no CPU of their own: those of the training processes are taken for as long as these run.

    Args:
        dataset, reference: the dataset, and the same in the object store.
        indices: rows of `split`, ascending.
        digest: of all pixels and labels.
    """

    def __init__(
        self,
        dataset: Dataset,
        reference: ray.ObjectRef[Any],
        split: str,
        indices: NDArray[np.int64],
        image_shape: tuple[int, int, int],
        digest: str,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self._dataset, self._reference, self._split, self._indices = dataset, reference, split, indices
        self._shape, self._digest, self._device = image_shape, digest, device
        self._labels = torch.from_numpy(dataset.labels[split][indices])
        bytes_of_one = int(np.prod(image_shape)) * dataset.dtype.itemsize
        self._span = int(np.clip(_BYTES_PER_TASK // bytes_of_one, 1, _MOST_ROWS_PER_TASK))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.from_numpy(np.empty(0, self._dataset.dtype)).dtype

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device) -> ImageStream:
        given = (self._dataset, self._reference, self._split, self._indices, self._shape, self._digest)
        return ImageStream(*given, device)

    def fingerprint(self) -> str:
        return self._digest

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Rows that lie together in one file are read together: their runs are shuffled, then the rows of each task."""
        count = len(self)
        runs = self._runs
        if runs is None:
            return torch.randperm(count, generator=generator)
        of_row = torch.from_numpy(np.searchsorted(runs, self._indices, side="right") - 1)
        ranks = torch.randperm(len(runs), generator=generator)
        order = torch.argsort(ranks[of_row], stable=True)
        spans = order.split(self._span)
        return torch.cat([span[torch.randperm(len(span), generator=generator)] for span in spans])

    @cached_property
    def _runs(self) -> NDArray[np.int64] | None:
        return self._dataset.runs(self._split)

    def fetch(self, order: Tensor, sizes: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        rows, labels = self._indices[order.numpy()], self._labels[order]
        chunks = self._decoded(rows)
        held: Pixels = np.empty((0, *self._shape[1:], self._shape[0]), dtype=self._dataset.dtype)
        start = 0
        for size in sizes:
            while len(held) < size:
                held = np.concatenate([held, next(chunks)]) if len(held) else next(chunks)
            batch, held = torch.from_numpy(held[:size]), held[size:]
            yield tensor_to_device(batch, self._device), tensor_to_device(labels[start : start + size], self._device)
            start += size

    def _decoded(self, rows: NDArray[np.int64]) -> Iterator[Pixels]:
        """The rows' pixels in their order, a task's at a time."""
        quiet_ray_data()
        reference, split, shape = self._reference, self._split, (*self._shape[1:], self._shape[0])
        spans = [{"rows": rows[start : start + self._span]} for start in range(0, len(rows), self._span)]

        def read(span: dict[str, Any]) -> dict[str, Any]:
            wanted = np.asarray(span["rows"][0])
            found = ray.get(reference)
            # What is drawn for images that differ follows from their order, which every epoch has another of.
            ascending = np.arange(len(wanted)) if found.differs(split) else np.argsort(wanted, kind="stable")
            pixels, faults = decode_span(found, split, wanted[ascending], shape)
            back = np.empty_like(pixels)
            back[ascending] = pixels
            # Told, not raised: an error of a task arrives as Ray's, without what it was.
            return {"pixels": [back], "fault": [next((fault for fault in faults if fault), "")]}

        items = ray.data.from_items(spans, override_num_blocks=len(spans))
        items.context.execution_options.preserve_order = True
        # In a trial's or worker's placement group there is no CPU left for tasks: they run outside of it.
        decoded = items.map_batches(
            read, batch_size=1, num_cpus=0, compute=_pool(len(spans)), scheduling_strategy="SPREAD"
        )
        for row in decoded.iter_rows():
            if row["fault"]:
                raise DataError(f"{row['fault']} (it could be decoded when the run began)")
            yield np.array(row["pixels"])  # Arrow's own are read-only, which torch warns of


def _pool(tasks: int) -> ray.data.TaskPoolStrategy:
    """A few at once for every process that trains: nothing else bounds tasks that ask for no CPU."""
    return ray.data.TaskPoolStrategy(size=min(tasks, _MOST_TASKS_AT_ONCE))


_SHARE_OF_STORE = 0.5  # training and validation images lie there together


@dataclass(frozen=True)
class LoadedImages:
    """Decoded images in the object store: (N, H, W, C) and int64 (N,), zero-copy wherever they are read.

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
        placement: `memory` and `stream` choose between the two; images that differ whenever they are read are streamed,
            too, unless it is `memory`.

    Raises:
        DataError: an image is corrupt (named by file and row) and `errors` is `stop`; one is of another size; none is
            left.
        UserError: the code of the dataset is not on a node.
    """
    channels, height, width = image_shape
    fitting = fits(len(rows), image_shape, dataset.dtype) and not dataset.differs(rows.split)
    streams = placement == "stream" or (placement == "auto" and not fitting)
    at_hand = dataset.at_hand(rows.split)
    if at_hand is not None and not streams:
        chosen = at_hand.take(torch.from_numpy(rows.indices))
        put = ray.put(chosen.images.numpy()), ray.put(chosen.labels.numpy())
        return LoadedImages(put[0], put[1], len(chosen), image_shape, ())
    images = None if streams else np.zeros((len(rows), height, width, channels), dtype=dataset.dtype)
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


def fits(count: int, image_shape: tuple[int, int, int], dtype: np.dtype[Any]) -> bool:
    """Whether that many decoded images would leave room in the object store of every node that may read them."""
    room = min(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"])
    return count * math.prod(image_shape) * dtype.itemsize <= _SHARE_OF_STORE * float(room)


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
