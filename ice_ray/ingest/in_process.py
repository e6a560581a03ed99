"""Images of the jobs' datasets for a process that works without Ray: read here, by the processes of a DataLoader."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import ray.data
import torch.utils.data as torch_data

from ice_ray.data.images import ImageSet
from ice_ray.data.reading import Found, Reader, read_items
from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, Pixels, RowImage
from ice_ray.ingest.datasets.own import OwnDataset
from ice_ray.ingest.roles import Rows

_MANY = 5000  # rows that are worth starting processes for
_MOST_PROCESSES = 8
_BATCH = 64


class _Items(torch_data.Dataset[tuple[RowImage, int]]):
    """Rows of a split as torch has items, several at a time."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._dataset, self._split = dataset, split

    def __getitems__(self, rows: list[int]) -> list[tuple[RowImage, int]]:
        order = np.argsort(rows, kind="stable")
        found: list[Any] = [None] * len(rows)
        ascending = np.asarray(rows)[order]
        for place, row in zip(order, self._dataset.read(self._split, ascending), strict=True):
            found[place] = (row, int(self._dataset.labels[self._split][rows[place]]))
        return found


def read_rows(dataset: Dataset, rows: Rows, name: str, progress: bool | None = None) -> Found:
    """Rows of a split, in memory where they fit there; else read for every pass.

    Args:
        name: what they are for messages.
        progress: as `progress_bar` has it.

    Raises:
        UserError: an image cannot be decoded, or is of another size than the first.
    """
    processes = min(_MOST_PROCESSES, os.cpu_count() or 1) if len(rows) >= _MANY else 0
    own = isinstance(dataset, OwnDataset)  # its rows lie in Ray's object store, which forked processes cannot ask
    reader = Reader(name, _Items(dataset, rows.split), rows.indices.tolist(), _stacked, 0 if own else processes, _BATCH)
    return read_items(reader, progress)


def read_few(dataset: Dataset, rows: Rows, skip: bool) -> ImageSet:
    """Rows of a split that memory holds in any case.

    Args:
        skip: leave out images that cannot be decoded.

    Raises:
        DataError: an image cannot be decoded, or is of another size than the first.
    """
    labels = dataset.labels[rows.split][rows.indices].tolist()
    read = list(zip(dataset.read(rows.split, rows.indices), labels, strict=True))
    return _stacked([row for row in read if not skip or row[0].pixels is not None])


def read_ray_dataset(dataset: ray.data.Dataset, name: str, progress: bool | None = None) -> Found:
    """All rows of a Ray Data dataset with columns `image` and `label`, in its order. Ray must be running.

    Raises:
        UserError: rows that are no labelled images of one size.
    """
    found = OwnDataset(name, lambda: {"train": dataset})
    return read_rows(found, Rows("train", np.arange(len(found.labels["train"]))), name, progress)


def _stacked(items: list[tuple[RowImage, int]]) -> ImageSet:
    images: list[Pixels] = []
    for row, _ in items:
        if row.pixels is None:
            raise DataError(row.error)
        if images and row.pixels.shape != images[0].shape:
            sizes = f"{row.pixels.shape} where another is {images[0].shape}"
            raise DataError(f"{row.name}: image is {sizes}; bring all to one size")
        images.append(row.pixels)
    return ImageSet.from_numpy(np.stack(images), np.array([label for _, label in items], np.int64))
