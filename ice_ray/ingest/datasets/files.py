"""Lists of image files, and names of classes that are WordNet's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Labels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
# Of archives of macOS, Synology's and Windows' disks, ext's root, Python, and Hadoop's unfinished writing.
_LEFT_BEHIND = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__", "_temporary")
)
# Bytes of one length, relative to the data's folder: ImageNet's 1.3 million go to every reader without a copy.
FileList = NDArray[np.bytes_]


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does, in upper or lower case."""
    return name.lower().endswith(SUFFIXES)


def is_data(name: str) -> bool:
    """Whether a file or folder of that name may be data: none that is hidden or that systems and tools leave behind."""
    return not name.startswith(".") and name not in _LEFT_BEHIND


def files_below(folder: Path | str, is_wanted: Callable[[str], bool]) -> list[str]:
    """The files whose names are wanted, at any depth and in no order, as paths that begin with `folder`.

    What is no data is left out. Links are followed, into every folder once, but for those above `folder`.

    Raises:
        OSError: a folder cannot be read.
    """
    found, entered = [], {str(above) for above in Path(os.path.realpath(folder)).parents}
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = [] if real in entered else sorted(filter(is_data, folders))
        if real not in entered:
            found += [f"{where}/{name}" for name in names if is_data(name) and is_wanted(name)]
        entered.add(real)
    return found


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, in alphabetical order, as torchvision's ImageFolder numbers them.

    Raises:
        DataError: one is a link that leads back, or two are the same folder.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and is_data(entry.name))
    real: dict[Path, str] = {}
    for name in names:
        meant = (folder / name).resolve()
        if folder.resolve().is_relative_to(meant):
            raise DataError(f"{folder}: class folder '{name}' is a link to a folder above it; remove it")
        if meant in real:
            raise DataError(f"{folder}: class folders '{real[meant]}' and '{name}' are one folder; remove the link")
        real[meant] = name
    return names


def list_by_class(root: Path, folder: Path, classes: list[str], is_training: bool) -> tuple[FileList, Labels]:
    """The images of `folder`, each below the folder of its class, at any depth.

    Args:
        root: what the list is relative to.
        is_training: whether every class must have some.

    Raises:
        DataError: a class that is not among `classes`, or has no images to train on, or images outside of any.
    """
    unknown = sorted(set(class_folders(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder}: class folder '{unknown[0]}' is not among the classes of train/")
    found = [_images(folder / name) for name in classes]
    if not any(found) and any(is_image(entry.name) and is_data(entry.name) for entry in folder.iterdir()):
        raise DataError(
            f"{folder} is flat: move each image into a folder of its class, {folder.name}/CLASS/, named as in train/"
        )
    empty = next((name for name, files in zip(classes, found, strict=True) if not files), None)
    if is_training and empty is not None:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{folder}: class '{empty}' has no training images ({kinds}): give it some, or remove it")
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in found]).astype(np.int64)
    return file_list(root, [file for files in found for file in files]), labels


def file_list(root: Path, files: list[str]) -> FileList:
    """Paths below `root`, as they are kept."""
    start = len(os.fsencode(root)) + 1
    return np.array([os.fsencode(file)[start:] for file in files], dtype=np.bytes_)


def path_in(root: Path, listed: bytes) -> Path:
    """The path of one file of a list."""
    return root / os.fsdecode(listed)


def read_words(file: Path) -> dict[str, str]:
    """A words.txt: a WordNet id, a tab and what it means, a line each. Nothing where there is no such file."""
    if not file.is_file():
        return {}
    lines = (line.partition("\t") for line in file.read_text(errors="replace").splitlines())
    return {wnid.strip(): meaning.strip() for wnid, _, meaning in lines if meaning.strip()}


def _images(folder: Path) -> list[str]:
    return sorted(files_below(folder, is_image)) if folder.is_dir() else []


def _raise(error: OSError) -> None:
    """What `os.walk` would pass over."""
    raise error
