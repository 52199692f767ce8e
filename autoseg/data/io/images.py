"""Reading image and mask files. A file that cannot be used is a DataError of one clear line.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from autoseg.data.io.arrays import MAX_PIXELS, array_labels, channels_last, npy_shape, pixel_values, read_npy, read_tiff
from autoseg.data.io.colour_tables import MOST_COLOURS, MaskTable, colours_in
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.data.wording import counted
from autoseg.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy")
FIRST_FILES = 10
"""Number of images or masks that are tried until one can be read and stands for all."""

DARK, BRIGHT = 32, 224
"""In black and white masks, one value is below DARK and the other at least BRIGHT."""
FLAT_SHARE = 0.002
CROWDED = 0.5
"""Least share of pixels with one of the two values; photos have less."""
SHADES = 8
"""Least number of values in between that shows blurred edges instead of labels."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_GREY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_TIFF = (".tif", ".tiff")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it warns of each TIFF that `read_tiff` reads
_BITS_PER_SAMPLE, _SUBFILE_TYPE = 258, 254


def is_image(name: str) -> bool:
    """Whether a file holds an image or a mask, by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_npy(path: Path) -> bool:
    """Whether a file holds a NumPy array, by its name."""
    return path.suffix.lower() == ".npy"


def read_image(
    path: Path, mask_size: tuple[int, int] | None = None, channels: int = 3, pixel_type: str = "uint8"
) -> NDArray[Any]:
    """An image file as (H, W, `channels`) of `pixel_type`: `uint8`, `uint16` or `float32`.

    Grey is converted to RGB, RGB to grey, RGBA to RGB, and 8 bits to 16 bits or back; floats stay as they are.
    Pillow reads 8 of 16 bits of a PNG in colour; TIFF, NPY and grey images keep all 16.
    The EXIF orientation is applied, unless `mask_size` (H, W) is given and matches only the image as stored.

    Raises: DataError: the file is missing, truncated, no image, or has other channels or values.
    """
    return _as_asked(_pixels(path, mask_size, channels), path, channels, pixel_type)


def image_format(path: Path) -> tuple[int, str]:
    """Number of channels and pixel type of an image file. Raises: DataError: as `read_image`."""
    pixels = _pixels(path, None, None)
    return pixels.shape[2], pixels.dtype.name


def read_mask(path: Path, table: MaskTable | None = None) -> NDArray[np.integer[Any]]:
    """A mask file as labels (H, W): palette indices, the values of a one-channel image, or what `table` says.

    Three equal channels count as one. A GIF in grey counts as grey, since the program that wrote it chose its palette.
    Raises: DataError: the file is missing, truncated, no image, in colour without a `table`, or a JPEG or WebP whose
    exact values are needed.
    """
    image = read_npy(path) if is_npy(path) else _open(path)
    if isinstance(table, int):
        return (_grey_values(image, path) >= table).astype(np.uint8)
    if isinstance(image, np.ndarray):
        if table is not None and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            return table.read(image, path)
        return array_labels(image, path)
    if image.format in ("JPEG", "MPO", "WEBP"):
        raise DataError(
            f"{path} is a {image.format} mask, whose compression changes labels; convert it to PNG, or set"
            " data.mask_threshold: 128 if it is black and white",
            code="mask-compression-lossy",
        )
    if table is not None and image.mode in ("RGB", "RGBA", "P", "L", "1"):
        return table.read(np.asarray(image.convert("RGB")), path)
    if image.format == "GIF" and image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        return colours[:, :, 0].copy() if (colours == colours[:, :, :1]).all() else np.asarray(image).copy()
    if image.mode in ("RGB", "RGBA", "LA"):
        return _single_channel(np.asarray(image), path)
    if image.mode not in ("P", "L", "1", *_GREY_16):
        raise DataError(
            f"{path} is a mask of Pillow mode {image.mode}; convert it to one channel of labels (8 or 16 bit)",
            code="mask-mode-unsupported",
        )
    labels = np.asarray(image)
    return labels.astype(np.uint8) if labels.dtype == np.bool_ else labels.copy()


def first_in_colour(masks: Iterable[Path]) -> Path | None:
    """The first mask that can be read, if its red, green and blue differ somewhere."""
    for path, image in _first_readable(masks):
        if image is None or image.mode not in ("RGB", "RGBA"):
            return None
        channels = np.asarray(image)[:, :, :3]
        return path if (channels != channels[:, :, :1]).any() else None
    return None


def are_black_and_white(masks: Iterable[Path]) -> bool:
    """Whether the first masks show two classes in black and white with blurred edges, as JPEGs and enlarged masks do.

    Their flat parts have one dark and one bright value; other values occur only at edges. Masks of labels are flat in
    all labels. Files that cannot be read do not count.
    """
    between: set[int] = set()
    seen = lossy = False
    for path, image in _first_readable(masks):
        if image is None or image.mode not in ("L", "RGB"):
            return False
        grey = _grey_values(image, path)
        flat = _flat_values(grey)
        dark, bright = (int(some.sum()) for some in (flat < DARK, flat >= BRIGHT))
        if max(dark, bright) > 1 or dark + bright < flat.size or np.isin(grey, flat).mean() < CROWDED:
            return False
        lossy = lossy or image.format in ("JPEG", "MPO")
        seen = seen or bool((grey >= BRIGHT).any())
        between.update(np.setdiff1d(grey, flat).tolist())
    return seen and (lossy or len(between) >= SHADES)


def _first_readable(masks: Iterable[Path]) -> Iterator[tuple[Path, Image.Image | None]]:
    """The first masks that can be read; None for an array."""
    for path in islice(masks, FIRST_FILES):
        try:
            image = None if is_npy(path) else _open(path)
        except DataError:  # `read_mask` reports it
            continue
        yield path, image if isinstance(image, Image.Image) else None


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as stored, from its header. Raises: DataError: the file is missing or no image."""
    if is_npy(path):
        shape = tuple(length for length in npy_shape(path) if length > 1)
        return (shape[0], shape[1]) if len(shape) > 1 else (1, 1)
    with _clear_errors(path), Image.open(path) as image:
        return image.height, image.width


def _grey_values(image: Image.Image | NDArray[Any], path: Path) -> NDArray[Any]:
    """The grey values of a mask, (H, W)."""
    if isinstance(image, np.ndarray):
        return array_labels(image, path)
    return np.asarray(image if image.mode in _GREY_16 else image.convert("L"))


def _flat_values(grey: NDArray[Any]) -> NDArray[np.int64]:
    """The values that fill squares of 3x3 pixels in more than `FLAT_SHARE` of an image."""
    rows = (grey[2:] == grey[1:-1]) & (grey[1:-1] == grey[:-2])
    flat = rows[:, 2:] & rows[:, 1:-1] & rows[:, :-2]
    middle = grey[1:-1, 1:-1]
    flat &= (middle == grey[1:-1, 2:]) & (middle == grey[1:-1, :-2])
    values, counts = np.unique(middle[flat], return_counts=True)
    return values[counts > FLAT_SHARE * grey.size].astype(np.int64)


# --- reading ----------------------------------------------------------------------------------------------------------


def _pixels(path: Path, mask_size: tuple[int, int] | None, channels: int | None) -> NDArray[Any]:
    """An image as stored, (H, W, C) of uint8, uint16 or float32; with its alpha channel if `channels` counts it.

    CMYK and other colour spaces become RGB.
    """
    image = read_npy(path) if is_npy(path) else _open(path)
    if isinstance(image, np.ndarray):
        return pixel_values(channels_last(image, path, channels), path)
    upright = _upright(image)
    if mask_size is None or (upright.height, upright.width) == mask_size:
        image = upright
    if image.mode in _GREY_16:
        values = np.asarray(image)[:, :, None]
        deep = values.dtype.itemsize > 2 and image.format != "PNG"  # older Pillow reads 16-bit PNGs as 32-bit integers
        return values.astype(np.float32) if deep else values.clip(0, 65535).astype(np.uint16)
    if image.mode == "F":
        return pixel_values(np.asarray(image)[:, :, None], path)
    if image.mode in ("1", "L", "LA") and "transparency" not in image.info:
        pixels = np.asarray(image if (image.mode, channels) == ("LA", 2) else image.convert("L"))
        return pixels.reshape(*pixels.shape[:2], -1).copy()
    if image.mode == "RGBX" or (image.mode == "RGBA" and channels == 4):
        return np.asarray(image).copy()
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).copy()


def _as_asked(pixels: NDArray[Any], path: Path, channels: int, pixel_type: str) -> NDArray[Any]:
    """Convert (H, W, C) to `channels` channels of `pixel_type`. Raises: DataError: no such conversion."""
    found = pixels.shape[2]
    if found != channels:
        if (found, channels) in ((4, 3), (2, 1)):
            pixels = pixels[:, :, :channels]
        elif (found, channels) == (1, 3):
            pixels = pixels.repeat(3, axis=2)
        elif (found, channels) == (3, 1):
            pixels = _grey(pixels)
        else:
            raise DataError(
                f"{path} has {counted(found, 'channel')}, but the data set has {channels}; convert it, or set"
                " data.channels",
                code="channels-differ",
            )
    stored = pixels.dtype.name
    if stored == pixel_type:
        return np.ascontiguousarray(pixels)
    if (stored, pixel_type) == ("uint16", "uint8"):
        return (pixels >> 8).astype(np.uint8)
    if (stored, pixel_type) == ("uint8", "uint16"):
        return pixels.astype(np.uint16) * np.uint16(257)
    raise DataError(
        f"{path} holds {stored} values, but the data set {pixel_type}; convert it, or set data.pixel_type",
        code="pixel-type-differs",
    )


def _grey(colours: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3) to (H, W, 1), by the weights of ITU-R 601."""
    grey = colours.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    rounded: NDArray[Any] = np.rint(grey) if np.issubdtype(colours.dtype, np.integer) else grey
    return rounded.astype(colours.dtype)[:, :, None]


def _single_channel(values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Labels (H, W) of a mask whose channels, except alpha, are equal. Raises: DataError: they differ."""
    channels = values[:, :, : 3 if values.shape[2] > 2 else 1]
    if (channels == channels[:, :, :1]).all():
        return channels[:, :, 0].copy()
    number, commonest = colours_in(channels)
    if number > MOST_COLOURS:
        raise DataError(
            f"{path} has the colours of a photo, not of a mask; are images and masks in swapped folders?",
            code="mask-like-photo",
        )
    found = ", ".join(f"name_{number}: {colour}" for number, colour in enumerate(commonest, start=1))
    raise DataError(
        f"{path} is a mask in colour, and nothing says which class each colour is; write data.colours, such as"
        f" {{{found}, ...}} with names of your own (`autoseg check-data` proposes all), or convert it to labels",
        code="mask-colours-unset",
    )


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, if there is one that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except (*_UNREADABLE, TypeError, KeyError):
        return image


def _open(path: Path) -> Image.Image | NDArray[Any]:
    """The decoded image of a closed file, or an array if Pillow cannot hold it. Raises: DataError: as `read_image`."""
    with _clear_errors(path):
        try:
            with Image.open(path) as image:
                if image.format == "TIFF" and _is_deep(image):
                    return read_tiff(path)
                if _is_animated(image):
                    raise DataError(
                        f"{path} has several frames; save the one that is meant as a PNG, or remove it",
                        code="several-frames",
                    )
                image.load()
                return image
        except UnidentifiedImageError:
            with path.open("rb") as file:
                start = file.read(4)
            if path.suffix.lower() in _TIFF and start in _TIFF_STARTS:
                return read_tiff(path)
            raise


def _is_deep(image: Image.Image) -> bool:
    """Whether a TIFF has several pages, or colours of more than 8 bits, which Pillow would cut to 8."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return (len(bits) > 1 and max(bits) > 8) or _is_animated(image)


def _is_animated(image: Image.Image) -> bool:
    """Whether a file holds several images. Previews and smaller copies (TIFF, MPO) do not count."""
    frames = getattr(image, "n_frames", 1)
    if frames < 2 or image.format == "MPO":
        return False
    if image.format != "TIFF":
        return True
    smaller = 0
    for frame in range(1, frames):
        image.seek(frame)
        smaller += bool(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0))
    image.seek(0)
    return smaller < frames - 1


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a file that cannot be used into a DataError of one line."""
    form, remedy = "an image, or is cut off", "replace or remove it"
    with unreadable(path, form, remedy, *_UNREADABLE), missing_file(path):
        try:
            yield
        except IsADirectoryError:
            raise DataError(f"{path} is a folder, not an image; rename or remove it", code="file-is-folder") from None
        except Image.DecompressionBombError:
            raise DataError(
                f"{path} has more than {MAX_PIXELS:,} pixels; cut it into tiles", code="image-too-large"
            ) from None
