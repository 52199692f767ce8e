"""Reading image files. A file that cannot be used is a DataError of one clear line.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from autoseg.data.io.arrays import channels_last, pixel_values
from autoseg.data.io.channel_files import files_of
from autoseg.data.io.opening import GREY_16, Opened, open_file, refuse_sizes
from autoseg.data.wording import counted
from autoseg.errors import DataError


def read_image(
    path: Path,
    mask_size: tuple[int, int] | None = None,
    channels: int = 3,
    pixel_type: str = "uint8",
    orientation: str = "by_size",
) -> NDArray[Any]:
    """An image as (H, W, `channels`) of `pixel_type`: `uint8`, `uint16` or `float32`.

    Grey is converted to RGB, RGB to grey, RGBA to RGB, and 8 bits to 16 bits or back; floats stay as they are.
    Pillow reads 8 of 16 bits of a PNG in colour; TIFF, NPY and grey images keep all 16. The channels of several files
    follow each other; each file has its own, without alpha.
    orientation: `upright` turns the image as its EXIF note says, `stored` does not, and `by_size` turns it unless
    `mask_size` (H, W) is given and matches only the image as stored.

    Raises: DataError: a file is missing, truncated, no image, or has other channels, values or another size.
    """
    files = files_of(path)
    if len(files) == 1:
        return _as_asked(_turned(path, mask_size, channels, orientation), path, channels, pixel_type)
    parts: list[NDArray[Any]] = []
    for file in files:
        own = _turned(file, mask_size, 0, orientation)
        parts.append(_as_asked(own, file, own.shape[2], pixel_type))
        if own.shape[:2] != parts[0].shape[:2]:
            refuse_sizes(files[0], parts[0].shape[:2], file, own.shape[:2])
    if (found := sum(part.shape[2] for part in parts)) != channels:
        _refuse_channels(path, found, channels)
    return np.concatenate(parts, axis=2)


def _turned(path: Path, mask_size: tuple[int, int] | None, channels: int, orientation: str) -> NDArray[Any]:
    """The stored values of a file, (H, W, C), turned as `read_image` does."""
    opened = open_file(path)
    pixels = _pixels(opened, path, channels)
    upright = opened.turned(pixels, upright=True)
    if orientation == "stored" or (orientation == "by_size" and mask_size not in (None, upright.shape[:2])):
        return opened.turned(pixels, upright=False)
    return upright


def _pixels(opened: Opened, path: Path, channels: int) -> NDArray[Any]:
    """(H, W, C) of uint8, uint16 or float32; with the alpha channel if `channels` counts it.

    CMYK and other colour spaces become RGB.
    """
    image = opened.content
    if isinstance(image, np.ndarray):
        return pixel_values(channels_last(image, path, channels), path)
    if image.mode in GREY_16:
        values = np.asarray(image)[:, :, None]
        deep = values.dtype.itemsize > 2 and image.format != "PNG"  # older Pillow reads 16-bit PNGs as 32-bit integers
        return values.astype(np.float32) if deep else values.clip(0, 65535).astype(np.uint16)
    if image.mode == "F":
        return pixel_values(np.asarray(image)[:, :, None], path)
    if image.mode in ("1", "L", "LA") and "transparency" not in image.info:
        pixels = np.asarray(image if (image.mode, channels) == ("LA", 2) else image.convert("L"))
        return pixels.reshape(*pixels.shape[:2], -1)
    if image.mode == "RGBX" or (image.mode == "RGBA" and channels == 4):
        return np.asarray(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _as_asked(pixels: NDArray[Any], path: Path, channels: int, pixel_type: str) -> NDArray[Any]:
    """Convert (H, W, C) to `channels` channels of `pixel_type`, a copy. Raises: DataError: no such conversion."""
    found = pixels.shape[2]
    if found != channels:
        if (found, channels) in ((4, 3), (2, 1)):
            pixels = pixels[:, :, :channels]
        elif (found, channels) == (1, 3):
            pixels = pixels.repeat(3, axis=2)
        elif (found, channels) == (3, 1):
            pixels = _grey(pixels)
        else:
            _refuse_channels(path, found, channels)
    stored = pixels.dtype.name
    if stored == pixel_type:
        return np.array(pixels, order="C")
    if (stored, pixel_type) == ("uint16", "uint8"):
        return (pixels >> 8).astype(np.uint8, order="C")
    if (stored, pixel_type) == ("uint8", "uint16"):
        return np.ascontiguousarray(pixels).astype(np.uint16) * np.uint16(257)
    raise DataError(
        f"{path} holds {stored} values, but the data set {pixel_type}; convert it, or set data.pixel_type",
        code="pixel-type-differs",
    )


def _refuse_channels(path: Path, found: int, channels: int) -> NoReturn:
    raise DataError(
        f"{path} has {counted(found, 'channel')}, but the data set has {channels}; convert it, or set data.channels",
        code="channels-differ",
    )


def _grey(colours: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) to (H, W, 1), by the weights of ITU-R 601."""
    grey = colours.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    rounded: NDArray[Any] = np.rint(grey) if np.issubdtype(colours.dtype, np.integer) else grey
    return rounded.astype(colours.dtype)[:, :, None]
