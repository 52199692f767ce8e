"""A data set of image and mask files: reading a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.data.base import CACHE_BYTES, SegmentationDataset
from autoseg.data.discovery.pairs import Pair, list_pairs, within
from autoseg.data.io.colour_tables import Colours, mask_table
from autoseg.data.io.images import IMAGE_SUFFIXES, image_size, read_image, read_mask
from autoseg.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "FolderDataset", "Pair", "list_pairs"]

LEAST_SIDE = 8
"""Pixels; what is smaller is no image to segment."""


class FolderDataset(SegmentationDataset):
    """Image and mask files. `pairs`: (name, image, mask) a sample, as `list_pairs` gives.

    `colours`: of the classes, where masks are colour-coded; `mask_threshold`: where they are in shades of grey.
    Images are brought to `channels` and `pixel_type`.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[Pair],
        classes: Sequence[str],
        ignore_label: int = 255,
        label_map: Mapping[int, int] | None = None,
        resize: tuple[int, int] | None = None,
        cache_bytes: int = CACHE_BYTES,
        channels: int = 3,
        pixel_type: str = "uint8",
        colours: Colours | None = None,
        mask_threshold: int | None = None,
    ) -> None:
        names = [name for name, _, _ in pairs]
        super().__init__(names, classes, ignore_label, label_map, resize, cache_bytes, channels, pixel_type)
        self._root = root
        self._pairs = list(pairs)
        self.colours = colours
        self.mask_threshold = mask_threshold
        self._table = mask_table(colours, mask_threshold, ignore_label)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W) as the files hold them.

        Raises: DataError: a file that cannot be read, or an image and a mask of different sizes.
        """
        _, image_path, mask_path = self._pairs[index]
        mask = read_mask(mask_path, self._table)
        image = read_image(image_path, (mask.shape[0], mask.shape[1]), self.channels, self.image_dtype.name)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{image_path} is {_size(image)} pixels, but its mask {mask_path} is {_size(mask)}; make them equal",
                code="mask-size-differs",
            )
        if min(mask.shape) < LEAST_SIDE:
            raise DataError(
                f"{image_path} is {_size(image)} pixels, but images need at least {LEAST_SIDE} each way; remove it",
                code="image-too-small",
            )
        return image, mask

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W), from the header of the mask's file. Raises: DataError: it cannot be read."""
        return image_size(self._pairs[index][2])

    def sources(self) -> list[tuple[str, str]]:
        """The two files of each sample, and how large and how old they are."""
        return [(f"{image}\n{mask}", f"{_state(image)} {_state(mask)}") for _, image, mask in self._pairs]

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._pairs[index][1]

    def where(self, index: int) -> str:
        """The mask's file, from the data set's folder on."""
        return within(self._root, self._pairs[index][2])

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Take samples out, index -> reason, and note them in `left_out`."""
        self.left_out += [(self.names[index], reason) for index, reason in sorted(reasons.items())]
        kept = [index for index in range(len(self)) if index not in reasons]
        self.names, self._pairs = [self.names[index] for index in kept], [self._pairs[index] for index in kept]
        self._cache = {new: self._cache[old] for new, old in enumerate(kept) if old in self._cache}


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _state(path: Path) -> str:
    """Bytes and time of the last change, in nanoseconds; of a file that is not there, nothing."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
