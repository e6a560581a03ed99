"""CIFAR-10, from its binary version or from parquet files; downloaded where no folder is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, RowImage
from ice_ray.ingest.datasets.parquet import Parquet

DEFAULT_DIRECTORY = Path.home() / ".cache" / "ice_ray" / "cifar10"
_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_FOLDER = "cifar-10-batches-bin"
_ROW_BYTES = 1 + 3 * 32 * 32
_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}


class Cifar10Binary(Dataset):
    """The binary version as published: a byte of label and 3 x 32 x 32 bytes of pixels a row. Holds no pickle."""

    classes = 10
    can_resize = False

    def __init__(self, folder: Path) -> None:
        self._files = {split: [folder / name for name in names] for split, names in _FILES.items()}
        missing = [file for files in self._files.values() for file in files if not file.is_file()]
        if missing:
            raise DataError(f"{missing[0]} is missing; remove the folder to download it again")
        odd = [file for files in self._files.values() for file in files if file.stat().st_size % _ROW_BYTES]
        if odd:
            raise DataError(f"{odd[0]} is cut short; remove the folder to download it again")
        self.labels = {
            split: np.concatenate([_rows(file)[:, 0] for file in files]).astype(np.int64)
            for split, files in self._files.items()
        }
        self.check_labels(f"data '{folder}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        stored = np.concatenate([_rows(file) for file in self._files[split]])
        for row in rows:
            yield RowImage(f"{split} row {row}", stored[row, 1:].reshape(3, 32, 32).transpose(1, 2, 0))


def open_cifar10(directory: str | None, image_size: int | None) -> Dataset:
    """CIFAR-10 from a folder with the binary version or parquet files; without one, downloaded once to the cache.

    Raises:
        DataError: the folder holds neither, or the download failed.
    """
    root = Path(directory) if directory else DEFAULT_DIRECTORY
    for folder in (root, root / _FOLDER):
        if (folder / "test_batch.bin").is_file():
            return Cifar10Binary(folder)
    if directory is None:
        _download(root)
        return Cifar10Binary(root / _FOLDER)
    if (root / "cifar-10-batches-py").is_dir() or (root / "data_batch_1").is_file():
        raise DataError(
            f"data '{directory}' is the Python version of CIFAR-10, which is made of pickles; "
            f"give the binary version ({_FOLDER}) or parquet files"
        )
    return Parquet(directory, image_size)


def _rows(file: Path) -> NDArray[np.uint8]:
    return np.fromfile(file, dtype=np.uint8).reshape(-1, _ROW_BYTES)


def _download(root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(_URL, str(root), md5=_MD5)
    except (OSError, RuntimeError) as error:
        raise DataError(f"CIFAR-10 could not be downloaded ({error}); give its folder: --data cifar10:DIR") from error
