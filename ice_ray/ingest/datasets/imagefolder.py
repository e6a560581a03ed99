"""Image folders: `train/CLASS/*.jpg` and `val/` or `test/` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, RowImage
from ice_ray.ingest.datasets.decode import decode

DEFAULT_SIZE = 224
_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})


class ImageFolder(Dataset):
    """Classes are the sub-folders of `train/`, in alphabetical order; images are fitted to a square (224 pixels)."""

    default_space = "imagenet"
    pad = 0
    flip = False

    def __init__(self, path: str, image_size: int | None = None) -> None:
        root = Path(path)
        if not root.is_dir():
            raise DataError(f"data '{path}': no such folder")
        self._size = image_size or DEFAULT_SIZE
        folders = {
            split: next((root / name for name in names if (root / name).is_dir()), None)
            for split, names in _FOLDERS.items()
        }
        train = folders["train"]
        if train is None:
            raise DataError(f"data '{path}': no folder train/ in it")
        names = sorted(entry.name for entry in train.iterdir() if entry.is_dir())
        self.classes = len(names)
        self._files: dict[str, list[Path]] = {}
        self.labels = {}
        for split, folder in folders.items():
            if folder is not None:
                self._files[split], labels = _list(folder, names)
                self.labels[split] = np.array(labels, dtype=np.int64)
        self.check_labels(f"data '{path}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        for row in rows:
            file = self._files[split][row]
            yield decode(str(file), file, self._size)


def _list(folder: Path, names: list[str]) -> tuple[list[Path], list[int]]:
    unknown = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in names)
    if unknown:
        raise DataError(f"{folder}: class folder '{unknown[0]}' is not among the classes of train/")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in _SUFFIXES)
        files += found
        labels += [label] * len(found)
    return files, labels
