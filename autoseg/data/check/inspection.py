"""Inspecting an image and its mask: kinds of files, labels, and faults.

Letters: H height and W width in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.config.data import ResolvedDataConfig
from autoseg.data.check.similar import Look, look_of
from autoseg.data.dataset import check_sizes
from autoseg.data.decide import SeenMask
from autoseg.data.discovery.pairs import Pair
from autoseg.data.io.channel_files import files_of
from autoseg.data.io.images import read_image
from autoseg.data.io.opening import Header, is_npy
from autoseg.data.look import PairLook
from autoseg.errors import DataError

_FAULTS = {
    "image-too-small": "small", "mask-size-differs": "size", "mask-like-photo": "label", "unknown-colour": "unreadable",
}  # fmt: skip
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
    look: Look | None = None
    """What the image looks like; None if it cannot be read, or was not asked for."""


def inspect_pair(look: PairLook, mask: SeenMask, data: ResolvedDataConfig, compare: bool = False) -> PairFacts:
    """Check that the image of a pair can be read and is of its mask's size. A broken file is a fault, not an exception.

    look: what was seen of the files. mask: the labels of the mask. data: the settings, as decided. compare: find what
    the image looks like.
    """
    _, image_path, mask_path = look.pair
    faults: list[Fault] = []
    upright = data.orientation == "upright"
    mask_size = size = image_kind = mask_kind = shown = None
    if isinstance(look.mask_header, Header):
        mask_kind = _kind(look.mask_header)
        mask_size = look.mask_header.upright_size if upright else look.mask_header.size
    if mask.error is not None:
        faults.append(Fault(_FAULTS.get(mask.error.code, "unreadable"), mask_path, str(mask.error)))
        if isinstance(look.mask, DataError):
            mask_size = mask_kind = None
    try:
        if isinstance(look.image, DataError):
            raise look.image
        size, shown = check_image(image_path, look.image, mask_size, data, compare)
        image_kind = _kind(look.image)
        check_sizes(image_path, size, mask_path, mask_size)
    except DataError as reason:
        faults.append(Fault(_FAULTS.get(reason.code, "unreadable"), image_path, str(reason)))
    kinds = image_kind, mask_kind
    return PairFacts(look.split, look.pair, mask_size or size, *kinds, mask.labels, mask.pixels, tuple(faults), shown)


def check_image(
    path: Path, header: Header, mask_size: tuple[int, int] | None, data: ResolvedDataConfig, compare: bool = False
) -> tuple[tuple[int, int], Look | None]:
    """(H, W) of an image as it is read, after a check that all of it can be read; what it looks like, if `compare`.

    A JPEG is decoded at an eighth of its size, which reads all data but saves most of the arithmetic. For a PNG, the
    checksums and the end mark are checked, which show every cut and every changed byte. Any other file, and one that
    fails its check, is read as a run would read it, which also gives the error.
    Raises: DataError: as `read_image`.
    """
    upright = data.orientation == "upright"
    size = header.upright_size if upright else header.size
    try:
        if size == (mask_size or size):
            is_whole, look = _is_whole(path, header, data, compare)
            if is_whole:
                return size, look
    except Exception:  # Pillow raises many kinds; `read_image` gives the error
        pass
    image = read_image(path, mask_size, data.channels, data.pixel_type, data.orientation)
    return (image.shape[0], image.shape[1]), look_of(image) if compare else None


def _is_whole(path: Path, header: Header, data: ResolvedDataConfig, compare: bool) -> tuple[bool, Look | None]:
    """Whether a JPEG or PNG is whole, False if the file must be read to know; and its look, if `compare`."""
    plain = header.format in ("JPEG", "PNG") and header.mode in ("L", "P", "RGB", "RGBA", "I;16")
    if is_npy(path) or len(files_of(path)) > 1 or not plain or data.pixel_type == "float32":
        return False, None
    if data.channels not in (1, 3) and data.channels != header.bands:
        return False, None
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            return False, None
        if header.format == "JPEG":
            image.draft(None, (1, 1))
            image.load()
            return True, look_of(image) if compare else None
        image.verify()
    if not compare:
        return True, None
    with Image.open(path) as image:  # `verify` has closed it
        return True, look_of(np.asarray(image)[:, :, None] if image.mode == "I;16" else image)


def _kind(header: Header) -> FileKind:
    return FileKind(header.format, header.mode, header.bands, header.bits)
