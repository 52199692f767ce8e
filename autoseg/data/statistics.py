"""How often each class occurs, and the class weights that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.data.base import SegmentationDataset


class ClassCounts(NamedTuple):
    """Labelled pixels by class; pixels with the ignore label count nowhere."""

    pixels: NDArray[np.int64]
    """(num_classes,): pixels of the class."""
    pixels_where_present: NDArray[np.int64]
    """(num_classes,): labelled pixels, of any class, of the images in which the class occurs."""


def count_classes(dataset: SegmentationDataset) -> ClassCounts:
    """Both counts over all images. Raises: DataError: a sample that cannot be used."""
    pixels = np.zeros(dataset.num_classes, dtype=np.int64)
    where_present = np.zeros_like(pixels)
    length = max(dataset.num_classes, dataset.ignore_label + 1)
    for index in range(len(dataset)):
        counts = np.bincount(dataset.load(index).mask.ravel(), minlength=length)
        if dataset.ignore_label < length:
            counts[dataset.ignore_label] = 0
        counts = counts[: dataset.num_classes]
        pixels += counts
        where_present[counts > 0] += counts.sum()
    return ClassCounts(pixels, where_present)


def class_pixel_counts(dataset: SegmentationDataset) -> NDArray[np.int64]:
    """Pixels of each class over all images, (num_classes,). Raises: DataError: a sample that cannot be used."""
    return count_classes(dataset).pixels


def class_weights(kind: str, counts: ClassCounts) -> NDArray[np.float64]:
    """Weights of the cross-entropy, (num_classes,): `none`, `enet` or `median_frequency`.

    Not normalised: as the papers have them. A class that never occurs has weight 0, and no part in the median.
    """
    return WEIGHTINGS[kind](counts)


def _none(counts: ClassCounts) -> NDArray[np.float64]:
    return np.ones(len(counts.pixels))


def _enet(counts: ClassCounts) -> NDArray[np.float64]:
    """1 / ln(1.02 + p), p the class's share of the labelled pixels: 1.4 to 50 (ENet, Paszke et al. 2016, sec. 5.1)."""
    share = counts.pixels / max(1, counts.pixels.sum())
    return np.where(counts.pixels > 0, 1 / np.log(1.02 + share), 0.0)


def _median_frequency(counts: ClassCounts) -> NDArray[np.float64]:
    """Median of f / f, f the class's share of the pixels of the images that have it (Eigen and Fergus 2015, 6.3.2)."""
    frequency = counts.pixels / np.maximum(1, counts.pixels_where_present)
    seen = counts.pixels > 0
    if not seen.any():
        return np.zeros(len(frequency))
    return np.where(seen, np.median(frequency[seen]) / np.where(seen, frequency, 1.0), 0.0)


WEIGHTINGS: dict[str, Callable[[ClassCounts], NDArray[np.float64]]] = {
    "none": _none,
    "enet": _enet,
    "median_frequency": _median_frequency,
}
