"""Images that were given as objects, as a dataset of the jobs' kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from ice_ray.data.images import ImageSet, ImageSource
from ice_ray.data.reading import ReadImages
from ice_ray.errors import UserError
from ice_ray.ingest.datasets.base import SPLITS, Dataset, Pixels, RowImage, numbered

_LABELS_AT_ONCE = 256


class HeldDataset(Dataset):
    """Splits of images that a process holds or can read: what `ice_ray.given_data` makes of the user's own.

    Other processes read what is held from Ray's object store, where it is put once, when the dataset is first sent
    anywhere; what is read for every pass they read themselves, so its torch Dataset must be one that can be pickled.

    Args:
        splits: train, and val, test or both; images of one size and type.
        class_names: one a class, in the order of the labels. [default: numbers as text]

    Raises:
        UserError: another split, sizes or types that differ, or labels that are no classes.
    """

    can_resize = False

    def __init__(self, splits: Mapping[str, ImageSource], class_names: Sequence[str] = ()) -> None:
        unknown = [split for split in splits if split not in SPLITS]
        if unknown or "train" not in splits:
            raise UserError(f"data of splits {', '.join(splits)}: give train, and val, test or both")
        first = splits["train"]
        for split, images in splits.items():
            if (images.image_shape, images.dtype) != (first.image_shape, first.dtype):
                raise UserError(
                    f"{split}: images are {images.dtype} {images.image_shape} and those of train {first.dtype} "
                    f"{first.image_shape}: give all in one form"
                )
        self._splits = {split: images.to(torch.device("cpu")) for split, images in splits.items()}
        self.dtype = torch.empty(0, dtype=first.dtype).numpy().dtype
        self.labels = {split: _labels(images) for split, images in self._splits.items()}
        largest = max(int(labels.max(initial=-1)) for labels in self.labels.values())
        self.class_names = tuple(str(name) for name in class_names) or numbered(largest)
        self.check_labels("data")
        self.note_classes_without_images()
        self._shared: dict[str, tuple[str, ray.ObjectRef[Any]]] = {}

    def at_hand(self, split: str) -> ImageSet | None:
        images = self._splits[split]
        return images if isinstance(images, ImageSet) else None

    def differs(self, split: str) -> bool:
        images = self._splits[split]
        return isinstance(images, ReadImages) and images.is_augmented

    def read(self, split: str, rows: NDArray[np.int64]) -> Iterator[RowImage]:
        try:
            pixels = self._pixels(split, rows)
        except UserError as error:
            if len(rows) == 1:
                name = f"{split}, image {rows[0]}"
                yield RowImage(name, None, f"{name}: {error}")
                return
            for row in rows:  # to find the one that it is
                yield from self.read(split, rows[row == rows])
            return
        for row, image in zip(rows, pixels, strict=True):
            yield RowImage(f"{split}, image {row}", image)

    def _pixels(self, split: str, rows: NDArray[np.int64]) -> Pixels:
        images = self._splits[split]
        if isinstance(images, ImageSet):
            pixels: Pixels = images.images.numpy()[rows]
            return pixels
        read: Pixels = images.take(torch.from_numpy(rows)).images.numpy()
        return read

    def __getstate__(self) -> dict[str, Any]:
        """Held images by reference, where Ray runs: the object store has them once, however often this is sent. What is
        read is read by whoever has it: a process of Ray's starts none of its own.
        """
        alone = {
            split: images.alone() if isinstance(images, ReadImages) else images
            for split, images in self._splits.items()
        }
        if not ray.is_initialized():
            return self.__dict__ | {"_splits": alone}
        context = ray.get_runtime_context()
        # Every Ray that is started here counts its jobs from 1 again.
        session = f"{context.get_session_name()} {context.get_job_id()}"
        held = {split: images for split, images in self._splits.items() if isinstance(images, ImageSet)}
        for split, images in held.items():
            if self._shared.get(split, ("",))[0] != session:
                self._shared[split] = session, ray.put((images.images.numpy(), images.labels.numpy()))
        others = {split: images for split, images in alone.items() if split not in held}
        return self.__dict__ | {"_splits": others, "_shared": dict(self._shared)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        absent = {split: found for split, (_, found) in self._shared.items() if split not in self._splits}
        for split, (images, labels) in zip(absent, ray.get(list(absent.values())) if absent else (), strict=True):
            self._splits[split] = ImageSet.from_numpy(images, labels)


def _labels(images: ImageSource) -> NDArray[np.int64]:
    """Of all images; where they are not held, from a pass over them."""
    if isinstance(images, ImageSet):
        return images.labels.numpy()
    every = torch.arange(len(images))
    sizes = [len(part) for part in every.split(_LABELS_AT_ONCE)]
    return torch.cat([labels for _, labels in images.fetch(every, sizes)]).numpy()
