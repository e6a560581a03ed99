"""Lists of image files, and names of classes that are WordNet's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.ingest.datasets.base import Labels

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
# Bytes of one length, relative to the data's folder: ImageNet's 1.3 million go to every reader without a copy.
FileList = NDArray[np.bytes_]


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does, in upper or lower case."""
    return name.lower().endswith(SUFFIXES)


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, in alphabetical order, as torchvision's ImageFolder numbers them."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def list_by_class(root: Path, folder: Path, classes: list[str]) -> tuple[FileList, Labels]:
    """The images of `folder`, each below the folder of its class, at any depth.

    Args:
        root: what the list is relative to.

    Raises:
        DataError: a class that is not among `classes`, or images outside of any.
    """
    unknown = sorted(set(class_folders(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder}: class folder '{unknown[0]}' is not among the classes of train/")
    found = [_images(folder / name) for name in classes]
    if not any(found) and any(is_image(entry.name) for entry in folder.iterdir()):
        raise DataError(
            f"{folder} is flat: move each image into a folder of its class, {folder.name}/CLASS/, named as in train/"
        )
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
    if not folder.is_dir():
        return []
    return sorted(f"{where}/{name}" for where, _, names in os.walk(folder) for name in names if is_image(name))
