"""What every data set is: numbered samples with names, their label map and size applied, kept in memory.

Letters: H height and W width in pixels, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.data.loading.packed import PackedSamples
from autoseg.errors import DataError

LabelMask: TypeAlias = NDArray[np.integer[Any]]
"""uint8, or uint16 where a label or the ignore label is above 255."""
CACHE_BYTES = 2 * 2**30
LABELS = 65536


class Sample(NamedTuple):
    """An image with its labels. The arrays are shared with the data set's cache: copy before changing them."""

    image: NDArray[Any]
    """(H, W, C) of uint8, uint16 or float32; RGB where C is 3."""
    mask: LabelMask
    """(H, W), 0..num_classes-1 or the ignore label."""


class SegmentationDataset(ABC):
    """The samples of one split. A subclass says how one is read; checks, mapping, size and memory are done here.

    `names`: one a sample, unique; `classes`: one name a class; `num_classes`; `ignore_label`; `channels` and
    `image_dtype` of every image; `left_out`: (name, reason) of samples that could not be used;
    `unlabelled`: names of those decoded so far whose mask holds the ignore label alone;
    `colours`: of the classes, where masks are colour-coded; `mask_threshold`: from which on grey is class 1.
    Decoded samples stay in memory up to `cache_bytes`; 0 keeps none. `keep` replaces that by a store of all of them.
    """

    def __init__(
        self,
        names: Sequence[str],
        classes: Sequence[str],
        ignore_label: int = 255,
        label_map: Mapping[int, int] | None = None,
        resize: tuple[int, int] | None = None,
        cache_bytes: int = CACHE_BYTES,
        channels: int = 3,
        pixel_type: str = "uint8",
    ) -> None:
        self.names = list(names)
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.ignore_label = ignore_label
        self.resize = resize
        self.cache_bytes = cache_bytes
        self.channels = channels
        self.image_dtype = np.dtype(pixel_type)
        self.left_out: list[tuple[str, str]] = []
        self.unlabelled: set[str] = set()
        self.colours: Mapping[str | int, tuple[int, int, int]] | None = None
        self.mask_threshold: int | None = None
        self.label_map = dict(label_map or {})
        self.store: PackedSamples | None = None
        self._check_label_map()
        self._lookup, self._legal = lookup_table(self.label_map, self.num_classes, ignore_label)
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        # a process that is not forked gets no copy of what is kept in memory
        return {**self.__dict__, "store": None, "_cache": {}, "_cached_bytes": 0}

    @abstractmethod
    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W) as they are stored, before the label map and the resizing.

        Raises: DataError: a file that cannot be read, or an image and a mask of different sizes.
        """

    def image_path(self, index: int) -> Path | None:
        """The image's file, if it has one."""
        return None

    def where(self, index: int) -> str:
        """The place of a sample's mask, for messages."""
        return self.names[index]

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W) of a sample before the resizing; a subclass that knows it without decoding says so.

        Raises: DataError: a file that cannot be read.
        """
        height, width = self.read(index)[1].shape
        return height, width

    def sources(self) -> list[tuple[str, str]] | None:
        """What each sample is made from, and the state that this is in: both differ where the samples may differ.

        None where that is not known: the samples are then never kept beyond this process.
        """
        return None

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Of every sample's mask."""
        return self._lookup.dtype

    def load(self, index: int) -> Sample:
        """A sample after the label map and the resizing.

        Raises: DataError: a file that cannot be read, sizes that differ, or a label that is no class.
        """
        if self.store is not None:
            return Sample(*self.store.arrays(index))
        sample = self.decode(index)
        size = sample.image.nbytes + sample.mask.nbytes
        if index not in self._cache and self._cached_bytes + size <= self.cache_bytes:
            self._cache[index] = sample
            self._cached_bytes += size
        return sample

    def keep(self, store: PackedSamples) -> None:
        """Take every sample from `store` from now on."""
        self.store = store
        self._cache, self._cached_bytes = {}, 0

    def decode(self, index: int) -> Sample:
        """A sample as `load` gives it, which is not kept for the next time."""
        if (cached := self._cache.get(index)) is not None:
            return cached
        image, stored = self.read(index)
        mask = self._to_labels(stored, index)
        if (mask == self.ignore_label).all():
            self.unlabelled.add(self.names[index])
        if self.resize is not None and self.resize != mask.shape:
            image, mask = resize_image(image, self.resize), resize_mask(mask, self.resize)
        return Sample(image, mask)

    def _to_labels(self, stored: NDArray[np.integer[Any]], index: int) -> LabelMask:
        if stored.min(initial=0) < 0 or stored.max(initial=0) >= LABELS:
            wrong = next(int(label) for label in np.unique(stored) if not 0 <= label < LABELS)
            raise DataError(
                f"label {wrong} in {self.where(index)} is outside 0..{LABELS - 1}; correct the mask",
                code="label-out-of-range",
            )
        if not self._legal[stored].all():
            wrong = int(stored[~self._legal[stored]].min())
            raise DataError(
                f"label {wrong} in {self.where(index)}, but the data set has {self.num_classes} classes"
                f" (0..{self.num_classes - 1}) and ignore label {self.ignore_label}; map it with data.label_map",
                code="label-out-of-range",
            )
        labels: LabelMask = self._lookup[stored]
        return labels

    def _check_label_map(self) -> None:
        for source, target in self.label_map.items():
            if not (0 <= source < LABELS and (0 <= target < self.num_classes or target == self.ignore_label)):
                raise DataError(
                    f"data.label_map sends {source} to {target}, but the data set has {self.num_classes} classes"
                    f" (0..{self.num_classes - 1}) and ignore label {self.ignore_label}; correct data.label_map",
                    code="label-map-invalid",
                )


def lookup_table(
    label_map: Mapping[int, int], num_classes: int, ignore_label: int
) -> tuple[LabelMask, NDArray[np.bool_]]:
    """For every label that a file can hold: the label used (65536,), and whether that is legal (65536,)."""
    table = np.arange(LABELS)
    for source, target in label_map.items():
        table[source] = target
    legal = (table < num_classes) | (table == ignore_label)
    narrow = max(num_classes - 1, ignore_label) < 256
    labels: LabelMask = np.where(legal, table, 0).astype(np.uint8 if narrow else np.uint16)
    return labels, legal


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H, W, C) to (size, C): bilinear, and with antialiasing where it shrinks."""
    height, width = size
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)).copy()
    planes = (Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in np.moveaxis(image, 2, 0))
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
    values = np.stack(resized, axis=2)
    if image.dtype != np.float32:
        values = np.rint(values).clip(0, np.iinfo(image.dtype).max)
    return values.astype(image.dtype)


def resize_mask(mask: LabelMask, size: tuple[int, int]) -> LabelMask:
    """(H, W) to `size`: each pixel takes the label of the nearest one, so no label appears that was not there."""
    rows, columns = (
        nearest(target, 0.0, source / target, source) for target, source in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def nearest(count: int, start: float, step: float, length: int) -> NDArray[np.intp]:
    """For `count` pixels of width `step` from `start` on, the source pixel (of `length`) under each one's centre."""
    centres = np.floor(start + (np.arange(count) + 0.5) * step)
    inside: NDArray[np.intp] = np.clip(centres.astype(np.intp), 0, length - 1)
    return inside
