"""What the header of an image file says, without decoding the file.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from autoseg.data.io.arrays import channels_last, npy_shape, tiff_header
from autoseg.data.io.images import as_pillow_fails, is_animated, is_deep, is_npy, is_tiff

ORIENTATION = 0x0112
"""The EXIF and TIFF tag that says how an image is turned for viewing: 1 is as stored."""
_BITS = {"1": 1, "F": 32, "I": 32}
"""Pillow mode -> bits. Modes of 16 bits have it in their name; other modes have 8."""
_GREY = ("1", "L", "LA", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")


class Header(NamedTuple):
    """The header of an image file."""

    format: str
    """PNG, JPEG, TIFF, NPY, ..."""
    mode: str
    """Pillow's mode, or an array's type."""
    bands: int
    """Channels of the file, alpha included."""
    bits: int
    """Bits per channel."""
    channels: int
    """Channels as an image without alpha: 1, 3 or, for arrays, any number."""
    pixel_type: str
    """uint8, uint16 or float32: the type in which the values are read."""
    size: tuple[int, int]
    """(H, W) as stored."""
    orientation: int = 1
    """How it is turned for viewing, 1 to 8: EXIF 2.32, table of the tag Orientation."""

    @property
    def kind(self) -> str:
        """`PNG RGB 8 bit`."""
        return f"{self.format} {self.mode} {self.bits} bit"

    @property
    def upright_size(self) -> tuple[int, int]:
        """(H, W) after turning it for viewing."""
        return self.size[::-1] if self.orientation > 4 else self.size


def read_header(path: Path) -> Header:
    """The header of an image file. Raises: DataError: the file is missing, or no image."""
    if is_npy(path):
        npy_shape(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _of_array("NPY", channels_last(array, path).shape, array.dtype)
    with as_pillow_fails(path):
        try:
            with Image.open(path) as image:
                if not (image.format == "TIFF" and is_deep(image)):
                    is_animated(image, path)
                    return _of_pillow(image)
        except Image.UnidentifiedImageError:
            if not is_tiff(path):
                raise
    shape, dtype, orientation = tiff_header(path)
    return _of_array("TIFF", shape, dtype)._replace(orientation=orientation)


def _of_array(form: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Header:
    kept = {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}
    height, width, channels = shape if len(shape) == 3 else (*shape, 1)
    bits = 8 * dtype.itemsize
    return Header(form, dtype.name, channels, bits, channels, kept.get(dtype.name, "float32"), (height, width))


def _of_pillow(image: Image.Image) -> Header:
    deep = "16" in image.mode or any("16" in str(part) for tile in getattr(image, "tile", ()) for part in tile[3:])
    bits = 16 if deep else _BITS.get(image.mode, 8)
    grey = image.mode in _GREY and "transparency" not in image.info
    pixel_type = "uint8"
    if image.mode.startswith("I"):
        pixel_type = "float32" if image.mode == "I" and image.format != "PNG" else "uint16"
    elif image.mode == "F":
        pixel_type = "float32"
    orientation = image.getexif().get(ORIENTATION, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    size = image.height, image.width
    if image.format == "TIFF" and orientation > 4:  # Pillow gives the upright size
        size = size[::-1]
    return Header(str(image.format), image.mode, len(image.getbands()), bits, 1 if grey else 3, pixel_type, size, orientation)
