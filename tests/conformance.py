"""What every dataset must do, whatever it is made of."""

from __future__ import annotations

import pickle

import numpy as np

from ice_ray.ingest.datasets import Dataset
from ice_ray.ingest.datasets.base import SPLITS


def read(dataset: Dataset, split: str, rows) -> list:
    return list(dataset.read(split, np.array(rows)))


def conforms(dataset: Dataset, damaged: tuple[int, ...] = (), channels: int = 3) -> None:
    """Check a dataset, of whose training rows `damaged` hold no image."""
    assert set(dataset.labels) <= set(SPLITS)
    assert dataset.classes == len(dataset.class_names) >= 2
    assert all(isinstance(name, str) and name for name in dataset.class_names)
    again = pickle.loads(pickle.dumps(dataset))
    for split, labels in dataset.labels.items():
        assert labels.dtype == np.int64
        assert labels.min() >= 0
        assert labels.max() < dataset.classes
        asked = np.arange(len(labels))[:6]
        rows = read(dataset, split, asked)
        assert len(rows) == len(asked)
        assert len({row.name for row in rows}) == len(rows)
        for number, row in enumerate(rows):
            if split == "train" and number in damaged:
                assert row.pixels is None
                assert row.error.startswith(f"{row.name}: ")
                assert "\n" not in row.error
            else:
                assert row.error == ""
                assert row.pixels.dtype == dataset.dtype
                assert row.pixels.ndim == 3
                assert row.pixels.shape[2] == channels
        agree(rows, read(again, split, asked))
        agree(rows[1::2], read(dataset, split, asked[1::2]))  # some are what they are among all
    assert read(dataset, "train", np.zeros(0, np.int64)) == []


def agree(rows: list, others: list) -> None:
    """The same rows, pixel by pixel."""
    assert [(row.name, row.error) for row in rows] == [(row.name, row.error) for row in others]
    for row, other in zip(rows, others, strict=True):
        assert np.array_equal(row.pixels, other.pixels)
