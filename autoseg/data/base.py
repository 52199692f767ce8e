"""The base class of data sets: numbered, named samples with the label map and the resizing applied, cached in memory.

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

from autoseg.config.data import Orientation
from autoseg.data.loading.packed import PackedSamples
from autoseg.errors import DataError

LabelMask: TypeAlias = NDArray[np.integer[Any]]
"""uint8, or uint16 if a label or the ignore label is above 255."""
CACHE_BYTES = 2 * 2**30
LABELS = 65536
NO_CLASS = LABELS
"""Where a label map sends a label that no mask may hold."""


class Sample(NamedTuple):
    """An image with its labels. The data set's cache shares the arrays: copy them before you change them."""

    image: NDArray[Any]
    """(H, W, C) of uint8, uint16 or float32; RGB if C is 3."""
    mask: LabelMask
    """(H, W), 0..num_classes-1 or the ignore label."""


class SegmentationDataset(ABC):
    """The samples of one split. A subclass implements `read`; this class checks, maps, resizes and caches.

    `names`: unique sample names. `classes`: class names. `channels`, `image_dtype`: the form of every image.
    `left_out`: (name, reason) of samples that could not be used. `unlabelled`: names of the samples decoded so far
    whose masks hold only the ignore label. `colours`: class colours of colour-coded masks. `mask_threshold`: the least
    grey value of class 1. `orientation`: as in `DataConfig`. The cache holds decoded samples up to `cache_bytes`;
    `keep` replaces it by a store.
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
        self.orientation: Orientation = "by_size"
        self.label_map = dict(label_map or {})
        self.store: PackedSamples | None = None
        self._check_label_map()
        self._lookup, self._legal = lookup_table(self.label_map, self.num_classes, ignore_label)
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        # a spawned worker process gets no copy of the samples in memory
        return {**self.__dict__, "store": None, "_cache": {}, "_cached_bytes": 0}

    @abstractmethod
    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W) as stored, before the label map and the resizing.

        Raises: DataError: a file that cannot be read, or an image and a mask of different sizes.
        """

    def image_path(self, index: int) -> Path | None:
        """The image's file, or the path that stands for its files, if there is one."""
        return None

    def groups(self) -> list[str] | None:
        """The group of each sample, which splits keep whole; None without `data.group_by`. Raises: ConfigError."""
        return None

    def where(self, index: int) -> str:
        """How messages name a sample's mask."""
        return self.names[index]

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W) before the resizing; subclasses avoid decoding. Raises: DataError: a file that cannot be read."""
        height, width = self.read(index)[1].shape
        return height, width

    def sources(self) -> list[tuple[str, str]] | None:
        """(source, state) of each sample. If samples may differ, one of the two differs.

        None: unknown; the samples are then never stored on disk.
        """
        return None

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """The type of all masks that `load` returns."""
        return self._lookup.dtype

    def load(self, index: int) -> Sample:
        """A sample after the label map and the resizing, from the store or the cache if it is there.

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
        """Load every sample from `store` from now on."""
        self.store = store
        self._cache, self._cached_bytes = {}, 0

    def decode(self, index: int) -> Sample:
        """As `load`, but without adding the sample to the cache. Raises: DataError: as `load`."""
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
            text = f"label {wrong} in {self.where(index)} is outside 0..{LABELS - 1}; correct the mask"
            raise DataError(text, code="label-out-of-range")
        if not self._legal[stored].all():
            wrong = int(stored[~self._legal[stored]].min())
            classes = f"but the data set has {self.num_classes} classes (0..{self.num_classes - 1}) and ignore label"
            why = "but its data set has no such class" if wrong in self.label_map else f"{classes} {self.ignore_label}"
            raise DataError(
                f"label {wrong} in {self.where(index)}, {why}; map it with data.label_map", code="label-out-of-range"
            )
        labels: LabelMask = self._lookup[stored]
        return labels

    def _check_label_map(self) -> None:
        known = self.ignore_label, NO_CLASS
        for source, target in self.label_map.items():
            if not (0 <= source < LABELS and (0 <= target < self.num_classes or target in known)):
                raise DataError(
                    f"data.label_map sends {source} to {target}, but the data set has {self.num_classes} classes"
                    f" (0..{self.num_classes - 1}) and ignore label {self.ignore_label}; correct data.label_map",
                    code="label-map-invalid",
                )


def lookup_table(
    label_map: Mapping[int, int], num_classes: int, ignore_label: int
) -> tuple[LabelMask, NDArray[np.bool_]]:
    """For every label that a file can hold: the label after the map, and whether it is legal. Both (65536,)."""
    table = np.arange(LABELS)
    for source, target in label_map.items():
        table[source] = target
    legal = (table < num_classes) | (table == ignore_label)
    narrow = max(num_classes - 1, ignore_label) < 256
    labels: LabelMask = np.where(legal, table, 0).astype(np.uint8 if narrow else np.uint16)
    return labels, legal


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(H, W, C) to (size, C), bilinear, with antialiasing when it shrinks."""
    rgb = image.dtype == np.uint8 and image.shape[2] == 3  # Pillow resizes RGB as it is, other images as float32 planes
    values = resampled(image if rgb else image.astype(np.float32), size)
    if values.dtype != image.dtype:
        values = np.rint(values).clip(0, np.iinfo(image.dtype).max)
    return values.astype(image.dtype, copy=False)


def resampled(
    image: NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[Any]:
    """The part `box` (left, top, right, bottom) of an image (H, W, C) as (size, C), bilinear and antialiased.

    uint8 stays uint8; other types become float32. `box` None is the whole image.
    """
    height, width = size
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(values, 2, 0))
    resized = [plane.resize((width, height), Image.Resampling.BILINEAR, box=box) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


def resize_mask(mask: LabelMask, size: tuple[int, int]) -> LabelMask:
    """(H, W) to `size` by nearest neighbour, which creates no new labels."""
    rows, columns = (
        nearest(target, 0.0, source / target, source) for target, source in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def nearest(count: int, start: float, step: float, length: int) -> NDArray[np.intp]:
    """The source pixel, of `length`, under the centre of each of `count` pixels of width `step`, from `start` on."""
    centres = np.floor(start + (np.arange(count) + 0.5) * step)
    inside: NDArray[np.intp] = np.clip(centres.astype(np.intp), 0, length - 1)
    return inside
