"""Reading masks, and looking at what values they hold before anything says what these mean.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.data.io.arrays import array_labels
from autoseg.data.io.colour_tables import MOST_COLOURS, MaskTable, as_code, colours_in
from autoseg.data.io.opening import GREY_16, LOSSY, Opened, open_file
from autoseg.errors import DataError

DARK, BRIGHT = 32, 224
"""In black and white masks, one value is below DARK and the other at least BRIGHT."""
MIDDLE = 128
"""The threshold between black and white."""
FLAT_SHARE = 0.002
LARGE = 2**18
"""Pixels of a mask from which a quarter of its rows tells its flat values."""
CROWDED = 0.5
"""Least share of pixels with one of the two values; photos have less."""
MOST_VALUES = 1024
"""Number of values of a mask that are kept, the commonest; masks have fewer, and those of a photo fill the memory."""
_RAW = re.compile(r"(?:L;|1;)(\d?)(I?)R?")
"""Pillow's names of grey values of 1, 2 or 4 bits, and of those where 0 is white."""
Palette = dict[int, tuple[int, int, int]]


class MaskFacts(NamedTuple):
    """What a mask holds as stored."""

    size: tuple[int, int]
    """(H, W) as stored."""
    orientation: int
    """Its own EXIF note."""
    kind: Literal["labels", "colours", "lossy"]
    """labels: whole numbers. colours: red, green and blue differ. lossy: grey values that compression has changed."""
    values: NDArray[np.int64]
    """Its labels, grey values or codes of colours, ascending."""
    pixels: NDArray[np.int64]
    """Number of pixels of each value."""
    palette: Palette | None = None
    """Index -> colour of the indices that occur, if it has a palette."""
    shades: int | None = None
    """If its flat parts have one dark and one bright value or one of them: the number of values at edges between."""
    flat: NDArray[np.int64] | None = None
    """The values that fill small squares, for labels of 8 bits; the others occur at edges or in thin lines alone."""


def read_mask(path: Path, table: MaskTable | None = None, upright: bool = False) -> NDArray[np.integer[Any]]:
    """A mask file as labels (H, W): palette indices, the values of a one-channel image, or what `table` says.

    Three equal channels count as one, and -1 is read as 65535. A GIF in grey counts as grey, since the program that
    wrote it chose its palette. upright: turn the mask as its own EXIF note says.
    Raises: DataError: the file is missing, truncated, no image, in colour without a `table`, or a JPEG or WebP whose
    exact values are needed.
    """
    opened = open_file(path)
    return np.ascontiguousarray(opened.turned(_labels(opened, path, table), upright))


def look_at_mask(path: Path) -> MaskFacts:
    """What a mask file holds. Raises: DataError: it cannot be read, or is none."""
    opened = open_file(path)
    image, palette = opened.content, None
    kind: Literal["labels", "colours", "lossy"] = "labels"
    if isinstance(image, Image.Image) and image.format in LOSSY:
        kind, found = "lossy", _grey_values(image, path)
    elif (colours := _colours(image)) is not None:
        kind, found = "colours", as_code(colours)
    else:
        found = _labels(opened, path, None)
    values, pixels = count_values(found)
    if isinstance(image, Image.Image) and image.mode == "P" and image.format != "GIF":
        palette = _palette(image, values)
    flat = shades = None
    if found.dtype == np.uint8 and kind != "colours":
        flat = values if len(values) <= 2 and kind != "lossy" else _flat_values(found)
        shades = _shades(found, values, flat)
    height, width = found.shape
    size = (width, height) if opened.is_upright and opened.orientation > 4 else (height, width)
    return MaskFacts(size, opened.orientation, kind, values, pixels, palette, shades, flat)


def first_in_colour(masks: Iterable[Path], most: int = 10) -> Path | None:
    """The first mask in colour among the first `most`. Files that cannot be read do not count."""
    for path in islice(masks, most):
        try:
            if _colours(open_file(path).content) is not None:
                return path
        except DataError:  # `read_mask` reports it
            continue
    return None


def count_values(values: NDArray[np.integer[Any]], at_once: int = 2**20) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values of an array, ascending, and the number of each; only the `MOST_VALUES` commonest."""
    flat = values.reshape(-1)
    if values.dtype in (np.uint8, np.uint16):
        counts = np.zeros(np.iinfo(values.dtype).max + 1, dtype=np.int64)
        for start in range(0, flat.size, at_once):  # more would only take memory
            counts += np.bincount(flat[start : start + at_once], minlength=len(counts))
        found = np.flatnonzero(counts)
        pixels = counts[found]
    else:
        found, pixels = np.unique(flat, return_counts=True)
    if found.size > MOST_VALUES:
        kept = np.sort(np.argsort(-pixels, kind="stable")[:MOST_VALUES])
        found, pixels = found[kept], pixels[kept]
    return found.astype(np.int64), pixels.astype(np.int64)


# --- labels -----------------------------------------------------------------------------------------------------------


def _labels(opened: Opened, path: Path, table: MaskTable | None) -> NDArray[np.integer[Any]]:
    image = opened.content
    if isinstance(table, int):
        return (_grey_values(image, path) >= table).astype(np.uint8)
    if isinstance(image, np.ndarray):
        if table is not None and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            return table.read(image, path)
        return array_labels(image, path, opened.nodata)
    if image.format in LOSSY:
        raise DataError(
            f"{path} is a {image.format} mask, whose compression changes labels; convert it to PNG, or set"
            " data.mask_threshold: 128 if it is black and white",
            code="mask-compression-lossy",
        )
    if table is not None and image.mode in ("RGB", "RGBA", "P", "L", "1"):
        return table.read(np.asarray(image.convert("RGB")), path)
    if image.format == "GIF" and image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        return colours[:, :, 0] if (colours == colours[:, :, :1]).all() else np.asarray(image)
    if image.mode in ("RGB", "RGBA", "LA"):
        return _single_channel(np.asarray(image), path)
    if image.mode in ("I", "F"):
        return array_labels(np.asarray(image), path, opened.nodata)
    if image.mode not in ("P", "L", "1", *GREY_16):
        raise DataError(
            f"{path} is a mask of Pillow mode {image.mode}; convert it to one channel of labels (8 or 16 bit)",
            code="mask-mode-unsupported",
        )
    labels = np.asarray(image)
    return _as_stored(labels.astype(np.uint8) if labels.dtype == np.bool_ else labels, opened.raw)


def _as_stored(values: NDArray[Any], raw: str) -> NDArray[Any]:
    """Undo that Pillow spreads grey values of 2 and 4 bits over 0..255, and turns those round where 0 is white."""
    found = _RAW.fullmatch(raw)
    if found is None:
        return values
    most = 1 if raw.startswith("1") else 255
    values = most - values if found[2] else values
    return values // {"2": 85, "4": 17}[found[1]] if found[1] in ("2", "4") else values


def _grey_values(image: Image.Image | NDArray[Any], path: Path) -> NDArray[Any]:
    """The grey values of a mask, (H, W)."""
    if isinstance(image, np.ndarray):
        return array_labels(image, path)
    return np.asarray(image if image.mode in (*GREY_16, "F") else image.convert("L"))


def _single_channel(values: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Labels (H, W) of a mask whose channels, except alpha, are equal. Raises: DataError: they differ."""
    channels = values[:, :, : 3 if values.shape[2] > 2 else 1]
    if (channels == channels[:, :, :1]).all():
        return channels[:, :, 0]
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


# --- facts ------------------------------------------------------------------------------------------------------------


def _colours(image: Image.Image | NDArray[Any]) -> NDArray[np.uint8] | None:
    """(H, W, 3) of a mask in colour; None if red, green and blue are equal everywhere."""
    if isinstance(image, np.ndarray):
        coloured = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        colours = image if coloured else None
    else:
        colours = np.asarray(image)[:, :, :3] if image.mode in ("RGB", "RGBA") else None
    return None if colours is None or (colours == colours[:, :, :1]).all() else colours


def _palette(image: Image.Image, values: NDArray[np.int64]) -> Palette:
    given = np.array(image.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3)
    return {int(value): (*given[value].tolist(),) for value in values if value < len(given)}


def _shades(grey: NDArray[np.uint8], values: NDArray[np.int64], flat: NDArray[np.int64]) -> int | None:
    """As `MaskFacts.shades`."""
    dark, bright = int((flat < DARK).sum()), int((flat >= BRIGHT).sum())
    if max(dark, bright) > 1 or dark + bright < flat.size or np.isin(grey, flat).mean() < CROWDED:
        return None
    return len(np.setdiff1d(values, flat))


def _flat_values(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The values that fill 3x3 squares in more than `FLAT_SHARE` of an image; of a large one, a quarter of the rows."""
    step = 4 if grey.size > LARGE else 1
    above, middle, below = grey[:-2:step], grey[1:-1:step], grey[2::step]
    rows = (above == middle) & (middle == below)
    flat = rows[:, 2:] & rows[:, 1:-1] & rows[:, :-2]
    flat &= (middle[:, 1:-1] == middle[:, 2:]) & (middle[:, 1:-1] == middle[:, :-2])
    counts = np.bincount(middle[:, 1:-1][flat])  # many times faster than np.unique, which sorts
    return np.flatnonzero(counts * step > FLAT_SHARE * grey.size).astype(np.int64)
