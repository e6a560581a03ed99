"""Image folders: `train/CLASS/*.jpg` and `val/` or `test/` beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import SPLITS, Dataset, RowImage
from ice_ray.ingest.datasets.decode import decode, fill
from ice_ray.ingest.datasets.files import class_folders, is_data, list_by_class, path_in
from ice_ray.ingest.datasets.split_names import is_bare, splits_of

DEFAULT_SIZE = 224
_SHOWN = 5  # folders, in a message


class ImageFolder(Dataset):
    """Classes are the sub-folders of `train/`, in alphabetical order; images are fitted to a square (224 pixels).

    The shorter side becomes that size and the centre is cropped: of an image whose object fills it nothing is lost.
    A split's folder has its name (train, valid, Test, `split=dev`), or else one with that among its words
    (`training_set/`, `seg_train/seg_train/`).
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(self, path: str, image_size: int | None = None) -> None:
        self._root = Path(path).absolute()
        if not self._root.is_dir():
            raise DataError(f"data '{path}': no such folder")
        self._size = image_size or DEFAULT_SIZE
        found = _split_folders(self._root, self.splits)
        if "train" not in found:
            others = ", ".join(_folders(self._root)[:_SHOWN])
            raise DataError(f"data '{path}': no folder train/ in it{f'; it has {others}' if others else ''}")
        train = _innermost(found.pop("train"), [])
        classes = class_folders(train)
        self.class_names = self.names_of(classes)
        self._files, self.labels = {}, {}
        self._files["train"], self.labels["train"] = list_by_class(self._root, train, classes, is_training=True)
        for split, folder in found.items():
            inner = _innermost(folder, classes)
            if is_bare(folder.name) or set(_folders(inner)) & set(classes):
                self._files[split], self.labels[split] = list_by_class(self._root, inner, classes, is_training=False)
        self.notes = tuple(_left_out(self._root, [train, *(found[split] for split in found if split in self.labels)]))
        self.check_labels(f"data '{path}'")
        self.note_classes_without_images()

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


def _split_folders(root: Path, splits: tuple[str, ...]) -> dict[str, Path]:
    """The folder of each split that there is one of: of a split's bare name, else with that among its words.

    Raises:
        DataError: there are two.
    """
    names = _folders(root)
    found = {}
    for split in splits:
        of_split = [name for name in names if splits_of(name) == (split,)]
        chosen = [name for name in of_split if is_bare(name)] or of_split
        if len(chosen) > 1:
            raise DataError(f"{root}: '{chosen[0]}' and '{chosen[1]}' both hold split {split}; keep one of them")
        if chosen:
            found[split] = root / chosen[0]
    return found


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and is_data(entry.name))


def _innermost(folder: Path, classes: list[str]) -> Path:
    """Where a split's classes are: archives often hold a folder in one of the same split (`seg_train/seg_train/`)."""
    inside = _folders(folder)
    if len(inside) != 1 or inside[0] in classes or splits_of(inside[0]) != splits_of(folder.name):
        return folder
    return _innermost(folder / inside[0], classes)


def _left_out(root: Path, read: list[Path]) -> Iterator[str]:
    """A line on each folder that has the name of a split in its own, and is none of those that are read."""
    for name in _folders(root):
        if splits_of(name) and not any(folder.is_relative_to(root / name) for folder in read):
            yield f"folder {name} is left out"
