"""scikit-learn's handwritten digits: 1,797 real images of 8x8, in the package, no download."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ice_ray.data.splits import stratified_sample
from ice_ray.ingest.datasets.base import Dataset, RowImage, numbered

_TEST_SHARE = 0.3


class Digits(Dataset):
    """Ten classes; 30% are held out, stratified, always the same ones, before any model is trained on the rest."""

    class_names = numbered(9)
    can_resize = False
    pad = 1

    def __init__(self) -> None:
        labels = _load()[1]
        test = stratified_sample(labels, round(len(labels) * _TEST_SHARE), 0, "digits test split")
        self._rows = {"train": np.setdiff1d(np.arange(len(labels)), test), "test": test}
        self.labels = {split: labels[rows] for split, rows in self._rows.items()}

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        pixels = _load()[0]
        for row in rows:
            yield RowImage(f"digits row {row}", pixels[self._rows[split][row]])


def _load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), digits.target.astype(np.int64)
