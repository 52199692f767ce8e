"""Images and masks that Pillow cannot hold: NPY files, and TIFFs of many bands or of more than 8 bits per colour.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError

MAX_PIXELS = 178_956_970
"""Pixels of an image; Pillow has the same limit against decompression bombs."""


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of an array file, from its header. Raises: DataError: it is missing, or no array of numbers."""
    form, remedy = "an array, or is cut off", "save it with numpy.save, as an array of numbers"
    with unreadable(path, form, remedy, OSError, ValueError, EOFError, SyntaxError), missing_file(path):
        return np.shape(np.load(path, mmap_mode="r", allow_pickle=False))


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a file. Raises: DataError: as `npy_shape`, or too many values."""
    check_pixels(path, npy_shape(path))
    with unreadable(path, "an array", "save it again", OSError, ValueError, EOFError):
        # not mapped: if another program cuts off a mapped file, the process dies
        return np.asarray(np.load(path, allow_pickle=False))


def check_pixels(path: Path, shape: tuple[int, ...]) -> None:
    """Raises: DataError: more than `MAX_PIXELS` pixels."""
    longest = sorted(shape)[-2:]
    if len(longest) == 2 and longest[0] * longest[1] > MAX_PIXELS:
        raise DataError(
            f"{path} has {longest[0] * longest[1]:,} pixels, but at most {MAX_PIXELS:,} are read; cut it into tiles",
            code="image-too-large",
        )


def read_tiff(path: Path) -> NDArray[Any]:
    """A TIFF as (H, W) or (H, W, C), read by the package tifffile.

    Raises: DataError: the package is not installed, or cannot read the file.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise DataError(
            f"{path} is a TIFF of several bands, pages or 16-bit colours, which the package tifffile reads; install it"
            " (pip install tifffile imagecodecs), or save the image with numpy.save",
            code="package-missing",
        ) from None
    # tifffile raises exceptions of many kinds, some of other packages
    with unreadable(path, "a TIFF", "replace or remove it", Exception), tifffile.TiffFile(path) as file:
        series = file.series[0]
        check_pixels(path, series.shape)
        array, axes = series.asarray(), series.axes
    others = [place for place, axis in enumerate(axes) if axis not in "YX"]
    if array.ndim != len(others) + 2 or len([place for place in others if array.shape[place] > 1]) > 1:
        raise DataError(
            f"{path} has the axes {axes} of lengths {array.shape}; save one image as (H, W, C)",
            code="image-shape-invalid",
        )
    array = array.transpose([place for place, axis in enumerate(axes) if axis in "YX"] + others)
    return np.asarray(array.reshape(*array.shape[:2], -1) if others else array)


def channels_last(array: NDArray[Any], path: Path, channels: int | None = None) -> NDArray[Any]:
    """(H, W), (H, W, C) or (C, H, W) as (H, W, C).

    The channel axis is the first or last axis: the one of length `channels`, or else of less than `LEAST_INPUT_SIDE`.
    Raises: DataError: another number of axes, or neither or both may be the channel axis.
    """
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(
            f"{path} has the shape {array.shape}; an image is (H, W), (H, W, C) or (C, H, W)",
            code="image-shape-invalid",
        )
    ends = (array.shape[0], array.shape[2])
    for fits in ([end == channels for end in ends], [end < LEAST_INPUT_SIDE for end in ends]):
        if sum(fits) == 1:
            return np.moveaxis(array, 0, 2) if fits[0] else array
    raise DataError(
        f"{path} has the shape {array.shape}, of which nothing tells the channels; save it as (H, W, C) and set"
        " data.channels",
        code="channels-unclear",
    )


def array_labels(array: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    """An array of whole numbers as labels (H, W). Raises: DataError: fractions, or more axes than two."""
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[:, :, 0] if array.shape[2] == 1 else array[0]
    if array.ndim != 2:
        raise DataError(
            f"{path} has the shape {array.shape}, but a mask is (H, W); save one label a pixel",
            code="mask-shape-invalid",
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{path} holds numbers of type {array.dtype}; save the labels as whole numbers, such as uint8",
            code="mask-not-whole-numbers",
        )
    return array


def pixel_values(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W, C) as uint8, uint16 or else float32. Raises: DataError: values that are not real or not finite."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(array.dtype.newbyteorder("="))
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise DataError(
            f"{path} holds values of type {array.dtype}; save the image as uint8, uint16 or float32",
            code="pixel-type-unsupported",
        )
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} has values that are no finite numbers (NaN or infinite); replace them, or remove it",
            code="values-not-finite",
        )
    return values
