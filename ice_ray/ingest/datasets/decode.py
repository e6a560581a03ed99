"""Decoding image files to RGB of one size."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ice_ray.ingest.datasets.base import Pixels, RowImage

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # of TIFF
_ZERO_IS_WHITE, _SIGNED = 0, 2
# PIL gives these formats' grey pixels of up to 16 bits the whole range of 16, whatever type it holds them in.
_SIXTEEN_BITS = ("PNG", "PPM")
_MEND = "of no known range: convert it to 8 or 16 bits"


class UnknownRangeError(Exception):
    """Pixels of which nobody can say which value is white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB.

    Grey of more than eight bits is scaled by the range that its file gives it, where PIL would clip it. All else is
    PIL's own `convert("RGB")`, which most training pipelines call: what is transparent has the colour beneath, of
    several frames the first is taken, and nothing is turned upright.

    Raises:
        UnknownRangeError: integers or floating-point numbers without a range.
    """
    if _is_signed(image):
        raise UnknownRangeError(f"signed integers {_MEND}")
    if image.mode == "F":
        raise UnknownRangeError(f"floating-point pixels {_MEND}")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return Image.fromarray(scaled(np.asarray(image), _largest(image), _is_negative(image))).convert("RGB")
    if image.mode == "I":
        raise UnknownRangeError(f"32-bit integers {_MEND}")
    if image.mode == "La":  # which PIL turns into nothing else
        image = image.convert("LA")
    return image.convert("RGB")


def scaled(values: NDArray[np.generic], largest: int, is_negative: bool = False) -> Pixels:
    """Whole numbers from 0 to `largest` as bytes, rounded.

    Args:
        is_negative: whether 0 is white.
    """
    shares = np.clip(values.astype(np.float64) / largest, 0, 1)
    rounded: Pixels = np.rint((1 - shares if is_negative else shares) * 255).astype(np.uint8)
    return rounded


def _tag(image: Image.Image, number: int) -> int | None:
    """A TIFF's entry, of the first channel; None where there is none."""
    tags: dict[int, Any] | None = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    found = tags.get(number) if tags is not None else None
    return int(found[0] if isinstance(found, tuple) else found) if found is not None else None


def _is_signed(image: Image.Image) -> bool:
    return _tag(image, _SAMPLE_FORMAT) == _SIGNED


def _is_negative(image: Image.Image) -> bool:
    return _tag(image, _PHOTOMETRIC) == _ZERO_IS_WHITE


def _largest(image: Image.Image) -> int:
    """What is white, in pixels of up to 16 bits."""
    return (1 << (_tag(image, _BITS_PER_SAMPLE) or 16)) - 1


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
