"""Reading image and mask files, with one clear line for a file that cannot be used.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from autoseg.errors import DataError
from autoseg.files import one_line

_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_GREY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: Path, mask_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """An image file as RGB (H, W, 3), 16-bit grey scaled to 8.

    Cameras store a turned photo with a note (EXIF) on how to turn it. The note is followed, unless `mask_size` (H, W)
    is given and matches only the photo as it is stored.

    Raises: DataError: the file is missing, truncated or no image.
    """
    image = _open(path)
    upright = _upright(image)
    if mask_size is None or (upright.height, upright.width) == mask_size:
        image = upright
    if image.mode in _GREY_16:
        grey = np.asarray(image).astype(np.int64) >> 8
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).copy()


def read_mask(path: Path) -> NDArray[np.integer[Any]]:
    """A mask file as labels (H, W): palette indices, or the values of a one-channel image.

    Three equal channels count as one. Raises: DataError: the file is missing, truncated, no image, or in colour.
    """
    image = _open(path)
    if image.format in ("JPEG", "MPO", "WEBP"):
        raise DataError(f"{path} is a {image.format} mask, whose compression changes labels; convert it to PNG")
    if image.mode in ("RGB", "RGBA"):
        channels = np.asarray(image)[:, :, :3]
        if (channels == channels[:, :, :1]).all():
            return channels[:, :, 0].copy()
        raise DataError(
            f"{path} is a mask in colour, which needs a label map of colours; convert it to one channel of labels"
        )
    if image.mode not in ("P", "L", "1", *_GREY_16):
        raise DataError(
            f"{path} is a mask of Pillow mode {image.mode}; convert it to one channel of labels (8 or 16 bit)"
        )
    labels = np.asarray(image)
    return labels.astype(np.uint8) if labels.dtype == np.bool_ else labels.copy()


def _upright(image: Image.Image) -> Image.Image:
    """The photo turned as its EXIF note says; as it is stored, where there is no note or none that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except (*_UNREADABLE, TypeError, KeyError):
        return image


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as it is stored, from its header. Raises: DataError: the file is missing or no image."""
    with _clear_errors(path), Image.open(path) as image:
        return image.height, image.width


def _open(path: Path) -> Image.Image:
    """The decoded image. The file is closed again."""
    with _clear_errors(path), Image.open(path) as image:
        image.load()
        return image


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; restore it or take it out of the data set") from None
    except _UNREADABLE as reason:
        raise DataError(
            f"{path} cannot be read as an image, or is cut off ({one_line(reason)}); replace or remove it"
        ) from None
