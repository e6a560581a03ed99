"""What a dataset is: labels that are cheap to know, images that are decoded on demand."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ice_ray.errors import DataError
from ice_ray.wording import counted

if TYPE_CHECKING:  # processes that only decode are spared the seconds of loading torch
    from ice_ray.data.images import ImageSet

SPLITS = ("train", "val", "test")
UNLABELLED = -1
"""In place of a label, where there is none."""
_LARGEST_SMALL_IMAGE = 32
Pixels = NDArray[np.uint8 | np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class RowImage:
    """One row as read: its image, (H, W, C) of the dataset's type, or what is wrong with it, and a name for people
    (file and row).
    """

    name: str
    pixels: Pixels | None
    error: str = ""


def numbered(largest: int) -> tuple[str, ...]:
    """Names of classes that have none: 0 to the largest label."""
    return tuple(str(label) for label in range(largest + 1))


class Dataset(ABC):
    """A set of labelled images in splits. Made on the driver, sent to readers as it is: it holds paths, not images.

    Attributes:
        class_names: one a class, in the order of the labels; as the data gives them, else numbers as text.
        labels: per split (train, val, test; those that exist), int64 (N,).
        notes: what of the data is left out or was chosen between, a line each, for people.
        dtype: of images: uint8, or float32 that are normalised already and that a model takes as they are.
        can_resize: whether it can fit its images to another size.
        pad, flip: how its training images are augmented where they are small: pixels of padding before a random
            crop, and whether half of them are mirrored. Not at all, unless a dataset says otherwise.
    """

    class_names: tuple[str, ...]
    labels: dict[str, Labels]
    notes: tuple[str, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    can_resize = True
    pad = 0
    flip = False

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.class_names)

    @property
    def labels_digest(self) -> str:
        """A digest of all labels in their order: other data, or the same in another order, have another."""
        digest = hashlib.blake2b(digest_size=16)
        for split in sorted(self.labels):
            digest.update(f"{split} {len(self.labels[split])} ".encode() + self.labels[split].tobytes())
        return digest.hexdigest()

    @abstractmethod
    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        """Decode these rows of a split, which are given and come back in ascending order. Runs on any node."""

    def usual_augmentation(self, image_shape: tuple[int, int, int]) -> tuple[int, bool]:
        """`pad` and `flip` where images of that size are small, as the paper's CIFAR recipe has it; else neither."""
        return (self.pad, self.flip) if max(image_shape[1:]) <= _LARGEST_SMALL_IMAGE else (0, False)

    def runs(self, split: str) -> NDArray[np.int64] | None:
        """The first row of every run of rows that are read together (a parquet file's row group), ascending; None
        where every row is read by itself.
        """
        return None

    def at_hand(self, split: str) -> ImageSet | None:
        """A split's images where this process holds them and there is nothing to decode; None where it does not."""
        return None

    def differs(self, split: str) -> bool:
        """Whether an image is another one whenever it is read: such ones are read anew for every pass, in any order."""
        return False

    def place(self, split: str, row: int) -> str:
        """A row's own place, file and row, for people; empty where the split and its number in that say all."""
        return ""

    def leave_out_unlabelled(self) -> None:
        """Do without a held-out split that has no labels, as test splits are often published, and note that."""
        for split in ("val", "test"):
            labels = self.labels.get(split, np.zeros(0, np.int64))
            if len(labels) and (labels == UNLABELLED).all():
                del self.labels[split]
                self.notes += (f"split {split} has no labels ({counted(len(labels), 'image')}) and is left out",)

    def note_classes_without_images(self) -> None:
        """A line on the classes that a split has no images of, as of labels that begin with 1."""
        for split, labels in self.labels.items():
            lacking = np.setdiff1d(np.arange(self.classes), labels)
            if len(lacking):
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                self.notes += (f"split {split} has no images of class '{self.class_names[lacking[0]]}'{more}",)

    def check_labels(self, origin: str) -> None:
        """Every split's labels must be classes 0 to classes-1, and there must be something to train on.

        Raises:
            DataError: what is wrong, and where.
        """
        if len(self.labels.get("train", ())) == 0:
            raise DataError(f"{origin} has no training images")
        for split, labels in self.labels.items():
            if len(labels) == 0:
                raise DataError(f"{origin}: split {split} is empty")
            wrong = np.flatnonzero((labels < 0) | (labels >= self.classes))
            if len(wrong):
                where = self.place(split, int(wrong[0])) or origin
                raise DataError(
                    f"{where}: label {labels[wrong[0]]} (split {split}, row {wrong[0]}) is outside the classes 0 to "
                    f"{self.classes - 1}; correct the label or the class names"
                )
        if self.classes < 2:
            raise DataError(f"{origin} has {self.classes} class: at least 2 are needed to classify")
