"""Image folders: `train/CLASS/*.jpg` and `val/` or `test/` beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, Labels, RowImage
from ice_ray.ingest.datasets.decode import decode, fill
from ice_ray.ingest.datasets.files import class_folders, list_by_class, path_in

DEFAULT_SIZE = 224


class ImageFolder(Dataset):
    """Classes are the sub-folders of `train/`, in alphabetical order; images are fitted to a square (224 pixels).

    The shorter side becomes that size and the centre is cropped: of an image whose object fills it nothing is lost.
    Split folders may be named as partitions are (`split=train/`).
    """

    default_space = "imagenet"
    folders: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train",),
        "val": ("val", "valid", "validation"),
        "test": ("test",),
    }

    def __init__(self, path: str, image_size: int | None = None) -> None:
        self._root = Path(path).absolute()
        if not self._root.is_dir():
            raise DataError(f"data '{path}': no such folder")
        self._size = image_size or DEFAULT_SIZE
        train = self._folder_of("train", self.folders["train"])
        if train is None:
            raise DataError(f"data '{path}': no folder train/ in it")
        classes = class_folders(train)
        self.class_names = self.names_of(classes)
        self._files = {}
        self.labels = {}
        for split, names in self.folders.items():
            folder = self._folder_of(split, names)
            if folder is not None:
                listed = list_by_class(self._root, folder, classes, is_training=split == "train")
                self._files[split], self.labels[split] = listed
                self.notes += _lacking(split, classes, self.labels[split])
        self.check_labels(f"data '{path}'")

    def _folder_of(self, split: str, names: tuple[str, ...]) -> Path | None:
        """The folder of a split, by one of its names, bare or as partitions have it (`split=train/`).

        Raises:
            DataError: there are two.
        """
        found = [name for name in (*names, *(f"split={name}" for name in names)) if (self._root / name).is_dir()]
        if len(found) > 1:
            raise DataError(f"{self._root}: '{found[0]}' and '{found[1]}' both hold split {split}; keep one of them")
        return self._root / found[0] if found else None

    def names_of(self, classes: list[str]) -> tuple[str, ...]:
        """The classes' names, from those of their folders."""
        return tuple(classes)

    def fit(self, image: Image.Image, size: int) -> Image.Image:
        """An image fitted to size x size."""
        return fill(image, size)

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        for row in rows:
            file = path_in(self._root, self._files[split][row])
            yield decode(str(file), file, self._size, self.fit)


def _lacking(split: str, classes: list[str], labels: Labels) -> tuple[str, ...]:
    """A line on the classes that a split has no images of, if there are any."""
    lacking = np.setdiff1d(np.arange(len(classes)), labels)
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return (f"split {split} has no images of class '{classes[lacking[0]]}'{more}",) if len(lacking) else ()
