"""Inspecting an image and its mask: kinds of files, labels, and faults.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.config.data import DataConfig
from autoseg.data.base import check_labels
from autoseg.data.dataset import check_sizes
from autoseg.data.discovery.pairs import Pair
from autoseg.data.io.colour_tables import MaskTable
from autoseg.data.io.images import image_format, is_npy, read_image, read_mask
from autoseg.errors import DataError

AT_ONCE = 2**20
"""Number of pixels counted at once; more would only take memory."""
MOST_LABELS = 1024
"""Number of labels of a mask that are kept, the commonest; masks have fewer, and those of a photo fill the memory."""
_BITS = {"1": 1, "F": 32, "I": 32}
"""Pillow mode -> bits. Modes of 16 bits have it in their name; other modes have 8."""
_FAULTS = {"image-too-small": "small", "mask-size-differs": "size"}
"""Code of an error -> kind of the fault."""


class FileKind(NamedTuple):
    """The kind of a file, from its header."""

    format: str
    """PNG, JPEG, TIFF, NPY, ..."""
    mode: str
    """Pillow's mode, or an array's type."""
    channels: int
    bits: int
    """Bits per channel."""

    def __str__(self) -> str:
        return f"{self.format} {self.mode} {self.bits} bit"


class Fault(NamedTuple):
    """A fault of a file."""

    kind: str
    """unreadable, size, small or label."""
    file: Path
    text: str
    """One line that names the file and the remedy."""


class PairFacts(NamedTuple):
    """Facts about an image and its mask."""

    split: str
    pair: Pair
    size: tuple[int, int] | None
    """(H, W) of the mask, or of the image if the mask cannot be read."""
    image_kind: FileKind | None
    mask_kind: FileKind | None
    labels: NDArray[np.int64]
    """Labels in the mask's file, ascending."""
    pixels: NDArray[np.int64]
    """Number of pixels of each label."""
    faults: tuple[Fault, ...]
    """Faults that keep a run from using the pair."""


def inspect_pair(split: str, pair: Pair, table: MaskTable | None, config: DataConfig) -> PairFacts:
    """Decode a mask, and check that its image can be read. A broken file is a fault, not an exception.

    `table`: for masks that hold no labels. `config`: as `resolve_forms` returns it.
    """
    _, image_path, mask_path = pair
    faults: list[Fault] = []
    labels = pixels = np.zeros(0, dtype=np.int64)
    mask_size = image_kind = size = None
    try:
        mask = read_mask(mask_path, table)
        mask_size = mask.shape[0], mask.shape[1]
        labels, pixels = count_labels(mask)
        del mask  # free its memory before the image is read
        check_labels(mask_path, labels)
    except DataError as reason:
        faults.append(Fault("unreadable", mask_path, str(reason)))
    try:
        image_kind, size = look_at_image(image_path, mask_size, config.channels or 3, config.pixel_type or "uint8")
        check_sizes(image_path, size, mask_path, mask_size or size)
    except DataError as reason:
        faults.append(Fault(_FAULTS.get(reason.code, "unreadable"), image_path, str(reason)))
    mask_kind = None if mask_size is None else _kind_of(mask_path)
    return PairFacts(split, pair, mask_size or size, image_kind, mask_kind, labels, pixels, tuple(faults))


def count_labels(mask: NDArray[np.integer[Any]], at_once: int = AT_ONCE) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels of a mask, ascending, and the pixels of each; only the `MOST_LABELS` commonest."""
    flat = mask.reshape(-1)
    if mask.dtype in (np.uint8, np.uint16):
        counts = np.zeros(np.iinfo(mask.dtype).max + 1, dtype=np.int64)
        for start in range(0, flat.size, at_once):
            counts += np.bincount(flat[start : start + at_once], minlength=len(counts))
        labels = np.flatnonzero(counts)
        pixels = counts[labels]
    else:
        found, pixels = np.unique(flat, return_counts=True)
        labels = found.astype(np.int64)
    if labels.size > MOST_LABELS:
        kept = np.sort(np.argsort(-pixels, kind="stable")[:MOST_LABELS])
        labels, pixels = labels[kept], pixels[kept]
    return labels.astype(np.int64), pixels.astype(np.int64)


def look_at_image(
    path: Path, mask_size: tuple[int, int] | None, channels: int, pixel_type: str
) -> tuple[FileKind, tuple[int, int]]:
    """Kind and (H, W) of an image, after a check that all of it can be read.

    A JPEG is decoded at an eighth of its size, which reads all data but saves most of the arithmetic. For a PNG, the
    checksums and the end mark are checked, which show every cut and every changed byte. Any other file, and one that
    fails its check, is read as a run would read it, which also gives the error.
    Raises: DataError: as `read_image`.
    """
    try:
        quick = _quick_look(path, channels, pixel_type)
    except Exception:  # Pillow raises many kinds; `read_image` gives the error
        quick = None
    if quick is not None and mask_size in (None, quick[1]):
        return quick
    image = read_image(path, mask_size, channels, pixel_type)
    return _kind_of(path), (image.shape[0], image.shape[1])


def _quick_look(path: Path, channels: int, pixel_type: str) -> tuple[FileKind, tuple[int, int]] | None:
    """Check a JPEG or PNG without decoding it fully; None if the file must be read to know."""
    if is_npy(path) or pixel_type == "float32":
        return None
    with Image.open(path) as image:
        plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "P", "RGB", "RGBA", "I;16")
        if not plain or getattr(image, "n_frames", 1) > 1:
            return None
        kind, size = _pillow_kind(image), (image.height, image.width)
        if channels not in (1, 3) and channels != kind.channels:
            return None
        if image.format == "JPEG":
            image.draft(None, (1, 1))
            image.load()
        else:
            image.verify()
    return kind, size


def _kind_of(path: Path) -> FileKind:
    """The kind of a file that can be read."""
    if is_npy(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        channels = 1 if array.ndim < 3 else min(array.shape[0], array.shape[-1])
        return FileKind("NPY", array.dtype.name, channels, 8 * array.itemsize)
    try:
        with Image.open(path) as image:
            return _pillow_kind(image)
    except Exception:  # a TIFF that only tifffile reads
        channels, name = image_format(path)
        return FileKind(path.suffix[1:].upper(), name, channels, 8 * np.dtype(name).itemsize)


def _pillow_kind(image: Image.Image) -> FileKind:
    deep = "16" in image.mode or any("16" in str(part) for tile in getattr(image, "tile", ()) for part in tile[3:])
    return FileKind(str(image.format), image.mode, len(image.getbands()), 16 if deep else _BITS.get(image.mode, 8))
