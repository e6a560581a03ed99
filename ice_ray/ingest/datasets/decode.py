"""From encoded bytes to pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ice_ray.ingest.datasets.base import RowImage


def decode(name: str, source: bytes | Path, size: int | None) -> RowImage:
    """Decode an image file to RGB, and where `size` is given fit it to size x size (resize, then crop the centre).

    What cannot be decoded comes back as a row with an error, never as an exception.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return RowImage(name, None, f"{name}: corrupt image ({error})")
    if size is not None and rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BILINEAR)
    return RowImage(name, np.asarray(rgb))
