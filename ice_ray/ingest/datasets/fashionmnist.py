"""Fashion-MNIST: 60,000 and 10,000 grey images of 28x28 in 10 classes, from its four idx files."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, RowImage
from ice_ray.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

_CACHE = Path.home() / ".cache" / "ice_ray" / "fashionmnist"
_PREFIXES = {"train": "train", "test": "t10k"}
_UNREADABLE = (AssertionError, ValueError, TypeError, KeyError, RuntimeError, OSError, EOFError, zlib.error)


class FashionMnist(Dataset):
    """The files as published (`.gz`) or unpacked, in a folder or where torchvision keeps them below it; grey to RGB."""

    can_resize = False

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import FashionMNIST
        from torchvision.datasets.mnist import read_image_file, read_label_file

        self.class_names = tuple(FashionMNIST.classes)  # the files hold numbers alone
        self._images = {split: _file(folder, f"{prefix}-images-idx3-ubyte") for split, prefix in _PREFIXES.items()}
        self.labels = {}
        for split, prefix in _PREFIXES.items():
            labels = _read(_file(folder, f"{prefix}-labels-idx1-ubyte"), read_label_file)
            images = _read(self._images[split], read_image_file)
            if len(images) != len(labels):
                raise DataError(
                    f"{self._images[split]} has {counted(len(images), 'image')} for {counted(len(labels), 'label')}"
                )
            self.labels[split] = labels.numpy()
        self.check_labels(f"data '{folder}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        from torchvision.datasets.mnist import read_image_file

        images = _read(self._images[split], read_image_file).numpy()
        for row in rows:
            yield RowImage(f"{split} row {row}", np.repeat(images[row][..., None], 3, axis=2))


def open_fashionmnist(directory: str | None) -> Dataset:
    """Fashion-MNIST from a folder with its files; without one, downloaded once to the cache.

    Raises:
        DataError: files are missing or damaged, or the download failed.
    """
    root = Path(directory) if directory else _CACHE
    if directory is None:
        _download(root)
    elif not root.is_dir():
        raise DataError(f"data '{directory}': no such folder; give the folder that holds the four idx files")
    below = root / "FashionMNIST" / "raw"
    return FashionMnist(below if below.is_dir() else root)


def _file(folder: Path, name: str) -> Path:
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise DataError(f"{folder / name} is missing, and so is {name}.gz")


def _read(file: Path, reader: Callable[[str], Tensor]) -> Tensor:
    """What torchvision's reader makes of an idx file; it takes paths of unpacked ones alone."""
    try:
        if file.suffix != ".gz":
            return reader(str(file))
        with tempfile.NamedTemporaryFile() as unpacked:
            with gzip.open(file) as packed:
                shutil.copyfileobj(packed, unpacked)
            unpacked.flush()
            return reader(unpacked.name)
    except _UNREADABLE as error:
        raise DataError(f"{file} is damaged or no idx file ({error or type(error).__name__}); get it again") from error


def _download(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({reason}); give its folder: fashionmnist:DIR"
        ) from error
