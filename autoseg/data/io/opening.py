"""Opening image files: which files are images, what their headers say, and their stored pixels.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from autoseg import limits
from autoseg.data.io.arrays import (
    NODATA,
    as_nodata,
    channels_last,
    check_numbers,
    check_pixels,
    load_array,
    many_pages,
    npy_shape,
    read_npy,
    read_tiff,
    tiff_header,
)
from autoseg.data.io.channel_files import files_of
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".npy")
JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found")
"""Files and folders that systems, servers and archivers leave, in lower case, besides those that begin with a dot."""
GREY_16 = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey with more than 8 bits."""
LOSSY = ("JPEG", "MPO", "WEBP")
"""Formats whose compression changes values."""
ORIENTATION = 0x0112
"""The EXIF and TIFF tag that says how an image is turned for viewing: 1 is as stored."""

_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "bool", "uint8")
_GREY = ("1", "L", "LA", "F", *GREY_16)
_BITS = {"1": 1, "F": 32, "I": 32}
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
_LFS_START = b"version https://git-lfs"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE, _SUBFILE_TYPE, _EXTRA_SAMPLES = 258, 254, 338
warnings.filterwarnings("ignore", module="PIL")  # of damaged files, which an error of ours names
for _name in ("PIL.TiffImagePlugin", "tifffile"):  # they warn of damaged TIFFs, and of those that Pillow leaves out
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Header(NamedTuple):
    """What the header of an image file says."""

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
    def has_8_bits(self) -> bool:
        """Whether a file of an image of several has values of 8 bits or fewer."""
        return not {*_EIGHT_BITS}.isdisjoint(mode.rpartition(" ")[2] for mode in self.mode.split("+"))

    @property
    def upright_size(self) -> tuple[int, int]:
        """(H, W) after turning it for viewing."""
        return self.size[::-1] if self.orientation > 4 else self.size


class Opened(NamedTuple):
    """A decoded file. Pillow's TIFFs are already turned for viewing; `turned` takes that into account."""

    content: Image.Image | NDArray[Any]
    """An array if Pillow cannot hold it."""
    orientation: int = 1
    raw: str = ""
    """Pillow's name of the form in which the file stores values: `L;4` for grey of 4 bits."""
    nodata: float | None = None
    """The value of pixels without data, as GDAL writes it into TIFFs."""

    @property
    def is_upright(self) -> bool:
        """Whether `content` is already turned for viewing."""
        return isinstance(self.content, Image.Image) and self.content.format == "TIFF"

    def turned(self, pixels: NDArray[Any], upright: bool) -> NDArray[Any]:
        """Pixels of `content`, (H, W, ...), as stored or turned for viewing."""
        if upright == self.is_upright:
            return pixels
        return turn(pixels, self.orientation if upright else {6: 8, 8: 6}.get(self.orientation, self.orientation))


def is_image(name: str) -> bool:
    """Whether a file holds an image or a mask, by its name; files that systems leave beside images do not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name.rpartition("/")[2])


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system or an archiver, by its name."""
    return name.startswith(".") or name.lower() in JUNK_NAMES


def is_npy(path: Path) -> bool:
    """Whether a file holds a NumPy array, by its name."""
    return path.suffix.lower() == ".npy"


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels (H, W, ...) as a viewer shows them: EXIF 2.32, table of the tag Orientation."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def open_file(path: Path) -> Opened:
    """The decoded content of an image file. Raises: DataError: it is missing, cut off, no image, or has frames."""
    if is_npy(path):
        return Opened(read_npy(path))
    with as_pillow_fails(path), _pillow_image(path) as image:
        if image is None:
            array, orientation, nodata = read_tiff(path)
            return Opened(array, orientation, nodata=nodata)
        orientation, raw = _orientation(image), _raw_mode(image)
        nodata = as_nodata(getattr(image, "tag_v2", {}).get(NODATA))
        image.load()
        return Opened(image, orientation, raw, nodata)


def read_header(path: Path) -> Header:
    """The header of an image, of all its files together.

    Raises: DataError: a file is missing, or no image; or the files of an image differ in size or kind of numbers.
    """
    if len(files := files_of(path)) > 1:
        return _joint_header(files, [read_header(file) for file in files])
    if is_npy(path):
        npy_shape(path)
        array = channels_last(load_array(path, "r"), path)
        return _array_header(path, "NPY", array.shape, array.dtype, 1)
    with as_pillow_fails(path), _pillow_image(path) as image:
        return _array_header(path, "TIFF", *tiff_header(path)) if image is None else _pillow_header(image)


def _joint_header(files: Sequence[Path], headers: Sequence[Header]) -> Header:
    """The header of an image of several files. Where 8 and 16 bit mix, 8 become 16."""
    first = headers[0]
    alike = len({(header.size, header.orientation) for header in headers}) == 1
    for file, header in zip(files, headers, strict=True):
        if not alike and header.upright_size != first.upright_size:
            refuse_sizes(files[0], first.upright_size, file, header.upright_size)
        if (header.pixel_type == "float32") != (first.pixel_type == "float32"):
            raise DataError(
                f"{file} holds {header.pixel_type} values, but {files[0]}, of the same image, {first.pixel_type};"
                " save all as float32",
                code="pixel-types-differ",
            )
    counts = Counter(header.mode for header in headers)
    return Header(
        "+".join(dict.fromkeys(header.format for header in headers)),
        "+".join(mode if count == 1 else f"{count} {mode}" for mode, count in counts.items()),
        sum(header.bands for header in headers),
        max(header.bits for header in headers),
        sum(header.channels for header in headers),
        max((header.pixel_type for header in headers), key=("uint8", "uint16", "float32").index),
        *((first.size, first.orientation) if alike else (first.upright_size, 1)),
    )


def refuse_sizes(file: Path, size: tuple[int, int], other: Path, other_size: tuple[int, int]) -> NoReturn:
    """Raises: DataError: two files of one image differ in size (H, W)."""
    raise DataError(
        f"{other} is {other_size[1]}x{other_size[0]} pixels, but {file}, of the same image, {size[1]}x{size[0]}; resize"
        " one to the other's size",
        code="channel-sizes-differ",
    )


def _array_header(path: Path, form: str, shape: tuple[int, ...], dtype: np.dtype[Any], orientation: int) -> Header:
    check_numbers(dtype, path)
    pixel_type = {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}.get(dtype.name, "float32")
    height, width, channels = shape
    return Header(form, dtype.name, channels, 8 * dtype.itemsize, channels, pixel_type, (height, width), orientation)


def _pillow_header(image: Image.Image) -> Header:
    deep = "16" in image.mode or any("16" in str(part) for tile in getattr(image, "tile", ()) for part in tile[3:])
    bits = 16 if deep else _BITS.get(image.mode, 8)
    channels = 1 if image.mode in _GREY and "transparency" not in image.info else 3
    pixel_type = "uint16" if image.mode in GREY_16 else "float32" if image.mode == "F" else "uint8"
    if image.mode == "I" and image.format != "PNG":  # older Pillow reads 16-bit PNGs as 32-bit integers
        pixel_type = "float32"
    orientation, size = _orientation(image), (image.height, image.width)
    if image.format == "TIFF" and orientation > 4:  # Pillow tells the size after turning
        size = size[::-1]
    kind = str(image.format), image.mode, len(image.getbands()), bits
    return Header(*kind, channels, pixel_type, size, orientation)


def _orientation(image: Image.Image) -> int:
    """How the image is turned for viewing; 1 if nothing says it, or nothing that can be read."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # else Pillow decodes the whole file, to look for a note behind its pixels
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except (*_UNREADABLE, TypeError, KeyError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _raw_mode(image: Image.Image) -> str:
    """The form of stored values; Pillow forgets it when it decodes the image."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())[:1]]
    parts = arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments
    return next((part for part in parts if isinstance(part, str)), "")


@contextlib.contextmanager
def _pillow_image(path: Path) -> Iterator[Image.Image | None]:
    """The file as Pillow opens it, not decoded; None for a TIFF that only tifffile reads. Raises: DataError: frames."""
    with contextlib.ExitStack() as stack:
        image: Image.Image | None = None
        try:
            image = stack.enter_context(Image.open(path))
        except UnidentifiedImageError:
            with path.open("rb") as file:
                start = file.read(len(_LFS_START))
            if not start or start == _LFS_START:
                what = "is a pointer of Git LFS; run `git lfs pull`" if start else "is empty; restore or remove it"
                raise DataError(f"{path} {what}", code="file-unreadable") from None
            if path.suffix.lower() not in (".tif", ".tiff") or start[:4] not in _TIFF_STARTS:
                raise
        if image is not None:
            check_pixels(path, (image.height, image.width))
        if image is not None and image.format == "TIFF" and _is_deep(image):
            image = None
        if image is not None and _is_animated(image):
            raise DataError(
                f"{path} has several frames; save the one that is meant as a PNG, or remove it",
                code="several-frames",
            )
        yield image


def _is_deep(image: Image.Image) -> bool:
    """Whether a TIFF has what Pillow would leave out: pages, bands besides colours and alpha, more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    bits, extra = tags.get(_BITS_PER_SAMPLE, (8,)), tags.get(_EXTRA_SAMPLES, ())
    return (len(bits) > 1 and max(bits) > 8) or (len(bits) > 1 and 0 in extra) or _is_animated(image)


def _is_animated(image: Image.Image) -> bool:
    """Whether a file holds several images. Previews and smaller copies (TIFF, MPO) do not count."""
    if not getattr(image, "is_animated", False) or image.format == "MPO":
        return False
    if image.format != "TIFF":
        return True
    smaller = frames = 0
    with contextlib.suppress(EOFError):
        for frames in range(limits.CHANNELS + 1):
            image.seek(frames + 1)
            smaller += bool(getattr(image, "tag_v2", {}).get(_SUBFILE_TYPE, 0))
        raise many_pages(Path(str(image.filename)))  # type: ignore[attr-defined]
    image.seek(0)
    return smaller < frames


@contextlib.contextmanager
def as_pillow_fails(path: Path) -> Iterator[None]:
    """Turn what Pillow raises for a file that cannot be used into a DataError of one line."""
    form, remedy = "an image, or is cut off", "replace or remove it"
    with unreadable(path, form, remedy, Exception), missing_file(path):  # damaged files make Pillow raise anything
        try:
            yield
        except IsADirectoryError:
            raise DataError(f"{path} is a folder, not an image; rename or remove it", code="file-is-folder") from None
        except Image.DecompressionBombError:
            raise DataError(
                f"{path} has more than {limits.PIXELS:,} pixels; cut it into tiles", code="image-too-large"
            ) from None
