"""Reading image and mask files, with one clear line for a file that cannot be used.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from autoseg.data.io.arrays import MAX_PIXELS, array_labels, channels_last, npy_shape, pixel_values, read_npy, read_tiff
from autoseg.data.io.colour_tables import GreyTable, MaskTable, first_colours, is_photo_like
from autoseg.data.wording import counted
from autoseg.errors import DataError
from autoseg.files import one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy")
FIRST_FILES = 10
"""So many images or masks are tried for one that can be read and tells what all are like."""

DARK, BRIGHT = 32, 224
"""Below the one and from the other on lie the two values of black and white masks."""
FLAT_SHARE = 0.002
CROWDED = 0.5
"""Of the pixels, at least so many have one of the two values; in a photo, none of two has."""
SHADES = 8
"""So many values between the two, at least, show that edges are blurred and that these are no labels."""

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_GREY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_TIFF = (".tif", ".tiff")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # it speaks of each TIFF that `read_tiff` reads
_BITS_PER_SAMPLE, _SUBFILE_TYPE = 258, 254


def is_image(name: str) -> bool:
    """Whether a file holds an image or a mask, by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def read_image(
    path: Path, mask_size: tuple[int, int] | None = None, channels: int = 3, pixel_type: str = "uint8"
) -> NDArray[Any]:
    """An image file as (H, W, `channels`) of `pixel_type`: `uint8`, `uint16` or `float32`.

    Grey becomes RGB and RGB grey where `channels` asks for it, and a fourth channel (alpha) is left out where only
    three are wanted; 8 and 16 bit are scaled to each other; floats stay as they are.
    Of 16-bit colours in a PNG Pillow reads 8 bits; in a TIFF or NPY, and in grey, all 16 are kept.
    Cameras store a turned photo with a note (EXIF) on how to turn it. The note is followed, unless `mask_size` (H, W)
    is given and matches only the photo as it is stored.

    Raises: DataError: the file is missing, truncated, no image, or one of other channels.
    """
    return _as_asked(_pixels(path, mask_size, channels), path, channels, pixel_type)


def image_format(path: Path) -> tuple[int, str]:
    """Channels and pixel type of an image as its file has them. Raises: DataError: as `read_image`."""
    pixels = _pixels(path, None, None)
    return pixels.shape[2], pixels.dtype.name


def read_mask(path: Path, table: MaskTable | None = None) -> NDArray[np.integer[Any]]:
    """A mask file as labels (H, W): palette indices, the values of a one-channel image, or what `table` says.

    Three equal channels count as one, and so does a GIF in grey, whose palette is its writer's.
    Raises: DataError: the file is missing, truncated, no image, or in colour; a JPEG or WebP, where `table` needs exact
    values.
    """
    image = read_npy(path) if path.suffix.lower() == ".npy" else _open(path)
    if isinstance(table, GreyTable):
        return table.read(_grey_values(image, path))
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


def is_coloured(path: Path) -> bool:
    """Whether a mask has red, green and blue that differ. Raises: DataError: it cannot be read."""
    image = None if path.suffix.lower() == ".npy" else _open(path)
    if not isinstance(image, Image.Image) or image.mode not in ("RGB", "RGBA"):
        return False
    channels = np.asarray(image)[:, :, :3]
    return bool((channels != channels[:, :, :1]).any())


def first_in_colour(masks: Iterable[Path]) -> Path | None:
    """The first mask that can be read, if it is in colour."""
    for path in islice(masks, FIRST_FILES):
        try:
            return path if is_coloured(path) else None
        except DataError:  # it is said when the mask is read
            continue
    return None


def are_black_and_white(masks: Sequence[Path]) -> bool:
    """Whether masks show two classes in black and white with blurred edges, as JPEGs and enlarged masks do.

    The flat parts of each are all of one dark value and one bright value; what lies between is seen at edges alone.
    Masks of labels are flat in all their labels. What cannot be read does not count.
    """
    between: set[int] = set()
    seen = lossy = False
    for path in masks:
        try:
            image = None if path.suffix.lower() == ".npy" else _open(path)
        except DataError:
            continue
        if not isinstance(image, Image.Image) or image.mode not in ("L", "RGB"):
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


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as it is stored, from its header. Raises: DataError: the file is missing or no image."""
    if path.suffix.lower() == ".npy":
        shape = tuple(length for length in npy_shape(path) if length > 1)
        return (shape[0], shape[1]) if len(shape) > 1 else (1, 1)
    with _clear_errors(path), Image.open(path) as image:
        return image.height, image.width


def _grey_values(image: Image.Image | NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W) of a mask."""
    if isinstance(image, np.ndarray):
        return array_labels(image, path)
    return np.asarray(image if image.mode in _GREY_16 else image.convert("L"))


def _flat_values(grey: NDArray[Any]) -> NDArray[np.int64]:
    """Those that fill whole squares of 3x3 pixels, in no less than `FLAT_SHARE` of an image."""
    rows = (grey[2:] == grey[1:-1]) & (grey[1:-1] == grey[:-2])
    flat = rows[:, 2:] & rows[:, 1:-1] & rows[:, :-2]
    middle = grey[1:-1, 1:-1]
    flat &= (middle == grey[1:-1, 2:]) & (middle == grey[1:-1, :-2])
    values, counts = np.unique(middle[flat], return_counts=True)
    return values[counts > FLAT_SHARE * grey.size].astype(np.int64)


# --- reading ----------------------------------------------------------------------------------------------------------


def _pixels(path: Path, mask_size: tuple[int, int] | None, channels: int | None) -> NDArray[Any]:
    """An image as its file has it, (H, W, C) of uint8, uint16 or float32; an alpha channel where `channels` counts it.

    Four-colour prints and other colours than RGB become RGB.
    """
    image = read_npy(path) if path.suffix.lower() == ".npy" else _open(path)
    if isinstance(image, np.ndarray):
        return pixel_values(channels_last(image, path, channels), path)
    upright = _upright(image)
    if mask_size is None or (upright.height, upright.width) == mask_size:
        image = upright
    if image.mode in _GREY_16:
        values = np.asarray(image)[:, :, None]
        deep = values.dtype.itemsize > 2 and image.format != "PNG"  # older Pillows read 16-bit PNGs as 32-bit numbers
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
    """(H, W, C) with as many channels, and of the type, as are asked for."""
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
    """Labels (H, W) of a mask whose channels are equal, alpha left out."""
    channels = values[:, :, : 3 if values.shape[2] > 2 else 1]
    if (channels == channels[:, :, :1]).all():
        return channels[:, :, 0].copy()
    if is_photo_like(channels):
        raise DataError(
            f"{path} has the colours of a photo, not of a mask; are images and masks in swapped folders?",
            code="mask-like-photo",
        )
    found = ", ".join(f"name_{number}: {colour}" for number, colour in enumerate(first_colours(channels), start=1))
    raise DataError(
        f"{path} is a mask in colour, and nothing says which class each colour is; write data.colours, such as"
        f" {{{found}, ...}} with names of your own (`autoseg check-data` proposes all), or convert it to labels",
        code="mask-colours-unset",
    )


def _upright(image: Image.Image) -> Image.Image:
    """The photo turned as its EXIF note says; as it is stored, where there is no note or none that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except (*_UNREADABLE, TypeError, KeyError):
        return image


def _open(path: Path) -> Image.Image | NDArray[Any]:
    """The decoded image, or an array where Pillow cannot hold it. The file is closed again."""
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
    """Whether a TIFF has colours of more than 8 bit, of which Pillow would keep 8, or several pages."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    deep = len(bits) > 1 and max(bits) > 8
    return deep or _is_animated(image)


def _is_animated(image: Image.Image) -> bool:
    """Whether there are several images in a file: neither a second, smaller one (TIFF, MPO) nor a preview counts."""
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
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist; restore it or take it out of the data set", code="file-missing"
        ) from None
    except PermissionError:
        raise DataError(
            f"{path} may not be read; change its permissions, or remove it", code="permission-denied"
        ) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder, not an image; rename or remove it", code="file-is-folder") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} has more than {MAX_PIXELS:,} pixels; cut it into tiles", code="image-too-large"
        ) from None
    except _UNREADABLE as reason:
        raise DataError(
            f"{path} cannot be read as an image, or is cut off ({one_line(reason)}); replace or remove it",
            code="file-unreadable",
        ) from None
