"""TinyImageNet as published: train/WNID/images/, and val/images/ whose classes val/val_annotations.txt gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, Labels, RowImage
from ice_ray.ingest.datasets.decode import decode
from ice_ray.ingest.datasets.files import FileList, class_folders, file_list, list_by_class, path_in, read_words

_ANNOTATIONS = "val_annotations.txt"
_AGAIN = "extract the archive again"


class TinyImageNet(Dataset):
    """200 classes of 64x64 images, numbered in the alphabetical order of their WordNet ids.

    A validation split that has been arranged by class (`val/WNID/`) is read too. `test/` has no labels and is left
    alone. Images keep their size unless another is asked for.
    """

    def __init__(self, path: str, image_size: int | None = None) -> None:
        self._root, self._size = Path(path).absolute(), image_size
        train = self._root / "train"
        if not train.is_dir():
            raise DataError(f"data '{path}': no folder train/ in it; give the folder that the archive unpacks to")
        classes = class_folders(train)
        _check_wnids(self._root / "wnids.txt", classes)
        words = read_words(self._root / "words.txt")
        self.class_names = tuple(words.get(wnid, wnid) for wnid in classes)
        self._files: dict[str, FileList] = {}
        self.labels = {}
        self._files["train"], self.labels["train"] = list_by_class(self._root, train, classes, True)
        val = self._root / "val"
        if any((val / wnid).is_dir() for wnid in classes):
            self._files["val"], self.labels["val"] = list_by_class(self._root, val, classes, False)
        elif val.is_dir():
            self._files["val"], self.labels["val"] = _annotated(self._root, val, classes)
        self.check_labels(f"data '{path}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        for row in rows:
            file = path_in(self._root, self._files[split][row])
            yield decode(str(file), file, self._size)


def _check_wnids(file: Path, classes: list[str]) -> None:
    """The classes that are there must be those that the archive lists, or their numbers would be others."""
    if not file.is_file():
        return
    listed = set(file.read_text(errors="replace").split())
    missing, more = sorted(listed - set(classes)), sorted(set(classes) - listed)
    if missing:
        raise DataError(f"{file.parent / 'train'} lacks class '{missing[0]}', which {file.name} lists; {_AGAIN}")
    if more:
        raise DataError(f"{file.parent / 'train'} has class '{more[0]}', which {file.name} does not list; {_AGAIN}")


def _annotated(root: Path, val: Path, classes: list[str]) -> tuple[FileList, Labels]:
    """The validation images in the order of their annotations: file, WordNet id and a box a line, between tabs."""
    annotations, numbers = val / _ANNOTATIONS, {wnid: label for label, wnid in enumerate(classes)}
    if not annotations.is_file() or not (val / "images").is_dir():
        raise DataError(f"{val} needs {_ANNOTATIONS} and images/; {_AGAIN}")
    present = {entry.name for entry in (val / "images").iterdir()}
    files: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(annotations.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in numbers:
            raise DataError(f"{annotations}, line {number}: class '{wnid}' is not among the classes of train/")
        if name not in present:
            raise DataError(f"{annotations}, line {number}: no image '{name}' in {val / 'images'}; {_AGAIN}")
        files.append(f"{val / 'images'}/{name}")
        labels.append(numbers[wnid])
    return file_list(root, files), np.array(labels, dtype=np.int64)
