"""Images and masks that Pillow cannot hold: NPY files, and TIFFs of many bands or of more than 8 bits per colour.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoseg import limits
from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError
from autoseg.files import one_line

NODATA = 42113
"""GDAL's TIFF tag: the value of pixels without data."""
IGNORED_MARK = -1
"""The label of ignored pixels in PyTorch, QGIS and labelme; it is read as 65535."""

ATTEMPTS = 8
"""Attempts to load an array."""
HEADER_BYTES = 2**16
"""Bytes at the start of an array file in which its header ends."""


def load_array(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """`numpy.load` without pickles, from any thread.

    It parses the header as Python, and CPython 3.11's parser may raise a SystemError ("AST constructor recursion depth
    mismatch") where several threads use it at once (https://github.com/python/cpython/issues/106905); the next attempt
    succeeds.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return np.asanyarray(np.load(path, mmap_mode, allow_pickle=False))
        except SystemError:
            continue
    return np.asanyarray(np.load(path, mmap_mode, allow_pickle=False))


def npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of an array file, from its header. Raises: DataError: it is missing, or no array of numbers."""
    form, remedy = "an array, or is cut off", "save it with numpy.save, as an array of numbers"
    with unreadable(path, form, remedy, Exception), missing_file(path):  # a damaged header makes NumPy raise anything
        shape, dtype = _npy_header(path)
        check_pixels(path, shape, dtype.itemsize)
        load_array(path, "r")  # says whether the file is long enough
    return shape


def _npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type, of which `numpy.load` makes an array before it looks. Raises: ValueError and others."""
    with path.open("rb") as file:
        start = BytesIO(file.read(HEADER_BYTES))
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    for _ in range(ATTEMPTS):
        start.seek(0)
        with suppress(SystemError):  # see `load_array`
            shape, _, dtype = read[np.lib.format.read_magic(start)[0]](start)
            return shape, dtype
    raise ValueError("its header cannot be read")


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a file. Raises: DataError: as `npy_shape`, or too many values."""
    npy_shape(path)
    with unreadable(path, "an array", "save it again", Exception):
        # not mapped: if another program cuts off a mapped file, the process dies
        return np.asarray(load_array(path))


def check_pixels(path: Path, shape: tuple[int, ...], itemsize: int = 1) -> None:
    """Raises: DataError: more pixels or bytes than the limits."""
    longest, size = sorted(shape)[-2:], math.prod(shape) * itemsize
    if len(longest) == 2 and longest[0] * longest[1] > limits.PIXELS:
        raise DataError(
            f"{path} has {longest[0] * longest[1]:,} pixels, but at most {limits.PIXELS:,} are read; cut it into tiles",
            code="image-too-large",
        )
    if size > limits.IMAGE_BYTES:
        raise DataError(
            f"{path} is an array {shape} of {size:,} bytes, but at most {limits.IMAGE_BYTES:,} are read; cut it into"
            " tiles, or save fewer channels",
            code="image-too-large",
        )


def many_pages(path: Path) -> DataError:
    """The error of a TIFF of more pages than images have channels."""
    message = f"{path} has more than {limits.CHANNELS:,} pages; save the one that is meant as a PNG, or remove it"
    return DataError(message, code="several-frames")


def read_tiff(path: Path) -> tuple[NDArray[Any], int, float | None]:
    """A TIFF as (H, W) or (H, W, C), read by the package tifffile, its orientation tag (1 to 8), its value of no data.

    Raises: DataError: the package is not installed, or cannot read the file.
    """
    with _tiff_series(path) as (series, orientation):
        tag = series.keyframe.tags.get(NODATA)
        array, others = series.asarray(), _other_axes(path, series.axes, series.shape)
    array = array.transpose([place for place, axis in enumerate(series.axes) if axis in "YX"] + others)
    array = array.reshape(*array.shape[:2], -1) if others else array
    return np.asarray(array), orientation, as_nodata(tag and tag.value)


def as_nodata(text: object) -> float | None:
    """The value of no data that a TIFF tag has as text; None if it is none."""
    try:
        return float(str(text).strip("\0 ")) if text is not None else None
    except ValueError:
        return None


def tiff_header(path: Path) -> tuple[tuple[int, int, int], np.dtype[Any], int]:
    """The shape (H, W, C), type and orientation of what `read_tiff` reads. Raises: DataError: as there."""
    with _tiff_series(path) as (series, orientation):
        others = _other_axes(path, series.axes, series.shape)
        height, width = (series.shape[place] for place, axis in enumerate(series.axes) if axis in "YX")
        channels = int(np.prod([series.shape[place] for place in others]))
        return (height, width, channels), np.dtype(series.dtype), orientation


@contextmanager
def _tiff_series(path: Path) -> Iterator[tuple[Any, int]]:
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise DataError(
            f"{path} is a TIFF of several bands, pages or 16-bit colours, which the package tifffile reads; install it"
            " (pip install tifffile imagecodecs), or save the image with numpy.save",
            code="package-missing",
        ) from None
    # tifffile raises exceptions of many kinds, some of other packages
    broken = unreadable(path, "a TIFF", "replace or remove it", Exception)
    with broken, _missing_codec(path), tifffile.TiffFile(path) as file:
        if len(file.pages) > limits.CHANNELS:
            raise many_pages(path)
        check_pixels(path, file.series[0].shape, np.dtype(file.series[0].dtype).itemsize)
        tag = file.pages[0].tags.get(274)
        orientation = 1 if tag is None else int(tag.value)
        yield file.series[0], orientation if 1 <= orientation <= 8 else 1


@contextmanager
def _missing_codec(path: Path) -> Iterator[None]:
    """Turn tifffile's error of a compression that it reads with another package into a DataError."""
    try:
        yield
    except Exception as reason:
        if "requires the 'imagecodecs' package" not in str(reason):
            raise
        raise DataError(
            f"{path} is compressed in a way that the package imagecodecs reads ({one_line(reason)}); install it"
            " (pip install imagecodecs), or save the image without compression or with deflate",
            code="package-missing",
        ) from None


def _other_axes(path: Path, axes: str, shape: tuple[int, ...]) -> list[int]:
    """The places of the axes besides height and width. Raises: DataError: several of them are longer than 1."""
    others = [place for place, axis in enumerate(axes) if axis not in "YX"]
    if len(shape) != len(others) + 2 or len([place for place in others if shape[place] > 1]) > 1:
        raise DataError(
            f"{path} has the axes {axes} of lengths {shape}; save one image as (H, W, C)",
            code="image-shape-invalid",
        )
    return others


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


def array_labels(array: NDArray[Any], path: Path, nodata: float | None = None) -> NDArray[np.integer[Any]]:
    """An array of whole numbers, perhaps stored as floats, as labels (H, W).

    -1 is read as 65535, and so is the value of pixels without data, if it can be no label.
    Raises: DataError: fractions, or more axes than two.
    """
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[:, :, 0] if array.shape[2] == 1 else array[0]
    if array.ndim != 2:
        raise DataError(
            f"{path} has the shape {array.shape}, but a mask is (H, W); save one label a pixel",
            code="mask-shape-invalid",
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if nodata is not None and not 0 <= nodata <= 65535:
        missing = np.isnan(array) if np.isnan(nodata) else array == nodata
        array = np.where(missing, np.int64(IGNORED_MARK), array) if missing.any() else array
    if not np.issubdtype(array.dtype, np.integer):
        whole = np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all() and (array % 1 == 0).all()
        if not whole or np.abs(array).max(initial=0) > 2**31:
            raise DataError(
                f"{path} holds numbers of type {array.dtype} that are not whole; save the labels as whole numbers, such"
                " as uint8",
                code="mask-not-whole-numbers",
            )
        array = array.astype(np.int64)
    if np.issubdtype(array.dtype, np.signedinteger) and array.min(initial=0) == IGNORED_MARK:
        array = np.where(array == IGNORED_MARK, 65535, array)
    return array


def check_numbers(dtype: np.dtype[Any], path: Path) -> None:
    """Raises: DataError: an array holds no real numbers."""
    if not (dtype == np.bool_ or np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
        raise DataError(
            f"{path} holds values of type {dtype}; save the image as uint8, uint16 or float32",
            code="pixel-type-unsupported",
        )


def pixel_values(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W, C) as uint8, uint16 or else float32. Raises: DataError: values that are not real or not finite."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(array.dtype.newbyteorder("="))
    check_numbers(array.dtype, path)
    values = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} has values that are no finite numbers (NaN or infinite); replace them, or remove it",
            code="values-not-finite",
        )
    return values
