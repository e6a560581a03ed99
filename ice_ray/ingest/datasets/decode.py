"""From encoded bytes to pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ice_ray.ingest.datasets.base import RowImage
from ice_ray.ingest.datasets.rgb import UnknownRangeError, to_rgb

Fit = Callable[[Image.Image, int], Image.Image]


def fill(image: Image.Image, size: int) -> Image.Image:
    """Fit to size x size, keeping as much of the image as a square can: resize the shorter side, crop the centre."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """ImageNet's evaluation transform: the shorter side to 256/224 of size (bilinear), then the centre's size x size.

    The same pixels as torchvision's Resize(256) and CenterCrop(224), for size 224.
    """
    shorter = round(size * 256 / 224)
    width, height = image.size
    scaled = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled)
    return image.crop((left, top, left + size, top + size))


def decode(name: str, source: bytes | Path, size: int | None, fit: Fit = fill) -> RowImage:
    """Decode an image file to RGB, and where `size` is given fit it to size x size.

    What cannot be decoded comes back as a row with an error, never as an exception.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            rgb = to_rgb(image)
        if size is not None:
            rgb = fit(rgb, size)
    except UnknownRangeError as error:
        return RowImage(name, None, f"{name}: {error}")
    except UnidentifiedImageError:  # its own words name an address in memory
        return RowImage(name, None, f"{name}: corrupt image, or of a kind that Pillow cannot read")
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return RowImage(name, None, f"{name}: corrupt image ({reason})")
    return RowImage(name, np.asarray(rgb))
