"""Images that are decoded anew for every pass, ahead of their use: for what fits into no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from ice_ray.data.host_images import to_device
from ice_ray.data.images import ImageSource
from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset
from ice_ray.ingest.decoding import decode_span
from ice_ray.ingest.quiet import quiet_ray_data

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
        self._span = int(np.clip(_BYTES_PER_TASK // int(np.prod(image_shape)), 1, _MOST_ROWS_PER_TASK))

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._shape

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
        held = np.empty((0, *self._shape[1:], self._shape[0]), dtype=np.uint8)
        start = 0
        for size in sizes:
            while len(held) < size:
                held = np.concatenate([held, next(chunks)]) if len(held) else next(chunks)
            batch, held = torch.from_numpy(held[:size]), held[size:]
            yield to_device(batch, self._device), to_device(labels[start : start + size], self._device)
            start += size

    def _decoded(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The rows' pixels in their order, a task's at a time."""
        quiet_ray_data()
        reference, split, shape = self._reference, self._split, (*self._shape[1:], self._shape[0])
        spans = [{"rows": rows[start : start + self._span]} for start in range(0, len(rows), self._span)]

        def read(span: dict[str, Any]) -> dict[str, Any]:
            wanted = np.asarray(span["rows"][0])
            ascending = np.argsort(wanted, kind="stable")
            pixels, faults = decode_span(ray.get(reference), split, wanted[ascending], shape)
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
