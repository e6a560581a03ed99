"""The binary versions of CIFAR-10 and CIFAR-100: rows of label bytes and 3 x 32 x 32 bytes of pixels. No pickles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Dataset, Pixels, RowImage, numbered
from ice_ray.ingest.datasets.parquet import Parquet
from ice_ray.wording import counted

_CACHE = Path.home() / ".cache" / "ice_ray"
_PIXEL_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class CifarVersion:
    """What is different between the two.

    Attributes:
        name: of the dataset, as the command line has it.
        title: as people write it.
        url, md5: the archive.
        folder: what it unpacks to.
        files: per split.
        names_file: class names, a line each.
        classes: how many.
        label_bytes: before the pixels of each row; the last of them is the label.
        pickled: files or folders that betray the Python version.
    """

    name: str
    title: str
    url: str
    md5: str
    folder: str
    files: dict[str, tuple[str, ...]]
    names_file: str
    classes: int
    label_bytes: int
    pickled: tuple[str, ...]


class CifarBinary(Dataset):
    """A binary version as published. Training images are small: crops with 4 pixels of padding, and flips."""

    can_resize = False
    pad = 4
    flip = True

    def __init__(self, version: CifarVersion, folder: Path) -> None:
        self._files = {split: [folder / name for name in names] for split, names in version.files.items()}
        self._label_bytes = version.label_bytes
        files = [file for files in self._files.values() for file in files]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise DataError(f"{missing[0]} is missing; remove the folder to download it again")
        odd = [file for file in files if not _is_whole(file, version.label_bytes)]
        if odd:
            raise DataError(f"{odd[0]} is cut short; remove the folder to download it again")
        self.class_names = _class_names(folder / version.names_file, version.classes)
        self.labels = {
            split: np.concatenate([self._rows(file)[:, self._label_bytes - 1] for file in files]).astype(np.int64)
            for split, files in self._files.items()
        }
        self.check_labels(f"data '{folder}'")

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        stored = [self._rows(file) for file in self._files[split]]
        starts = np.cumsum([0, *map(len, stored)])
        for row, owner in zip(rows, np.searchsorted(starts, rows, side="right") - 1, strict=True):
            planes = stored[owner][row - starts[owner], self._label_bytes :].reshape(3, 32, 32)
            yield RowImage(f"{split} row {row}", np.ascontiguousarray(planes.transpose(1, 2, 0)))

    def _rows(self, file: Path) -> Pixels:
        """(N, label bytes + pixels), mapped: only what is asked for is read."""
        return np.memmap(file, dtype=np.uint8, mode="r").reshape(-1, self._label_bytes + _PIXEL_BYTES)


def open_cifar(version: CifarVersion, directory: str | None, image_size: int | None) -> Dataset:
    """CIFAR from a folder with the binary version or parquet files; without one, downloaded once to the cache.

    Raises:
        DataError: the folder holds neither, or the download failed.
    """
    root = Path(directory) if directory else _CACHE / version.name
    for folder in (root, root / version.folder):
        if (folder / version.files["test"][0]).is_file():
            return CifarBinary(version, folder)
    if directory is None:
        _download(version, root)
        return CifarBinary(version, root / version.folder)
    if any((root / name).exists() for name in version.pickled):
        raise DataError(
            f"data '{directory}' is the Python version of {version.title}, which is made of pickles; "
            f"give the binary version ({version.folder}) or parquet files"
        )
    return Parquet(directory, image_size)


def _is_whole(file: Path, label_bytes: int) -> bool:
    size = file.stat().st_size
    return size > 0 and size % (label_bytes + _PIXEL_BYTES) == 0


def _class_names(file: Path, classes: int) -> tuple[str, ...]:
    if not file.is_file():
        return numbered(classes - 1)
    names = tuple(line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip())
    if len(names) != classes:
        raise DataError(
            f"{file} names {counted(len(names), 'class')}, not {classes}; mend it, or remove it to go without names"
        )
    return names


def _download(version: CifarVersion, root: Path) -> None:
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(version.url, str(root), md5=version.md5)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{version.title} could not be downloaded ({error}); give its folder: {version.name}:DIR"
        ) from error
