"""ImageNet (ILSVRC 2012): `train/WNID/*.JPEG` and `val/WNID/*.JPEG`."""

from __future__ import annotations

from typing import ClassVar

from PIL import Image

from ice_ray.ingest.datasets.decode import resize_and_crop
from ice_ray.ingest.datasets.files import read_words
from ice_ray.ingest.datasets.imagefolder import ImageFolder


class ImageNet(ImageFolder):
    """An image folder whose images go through ImageNet's evaluation transform: 256, then the centre's 224 pixels.

    Training images too, as the paper augments none of them here. Other sizes keep the ratio 256/224. The published
    test split has no labels, so a folder `test/` is left alone; the validation split is published flat and has to be
    arranged by class. A `words.txt` beside `train/` names the classes; without one their WordNet ids do.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def names_of(self, classes: list[str]) -> tuple[str, ...]:
        words = read_words(self._root / "words.txt")
        return tuple(words.get(wnid, wnid) for wnid in classes)

    def fit(self, image: Image.Image, size: int) -> Image.Image:
        return resize_and_crop(image, size)
