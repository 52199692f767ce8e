"""Class frequencies, the weights that follow from them, and the mean and standard deviation of the channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.data.augment.sample import full_scale
from autoseg.data.base import SegmentationDataset

STATISTICS_IMAGES = 256
"""Number of images that `channel_statistics` reads at most."""
PIXELS_AT_ONCE = 2**20


class ClassCounts(NamedTuple):
    """Pixels by class, without those of the ignore label."""

    pixels: NDArray[np.int64]
    """(num_classes,): number of pixels of the class."""
    pixels_where_present: NDArray[np.int64]
    """(num_classes,): number of labelled pixels, of any class, in the images that show the class."""


def count_classes(dataset: SegmentationDataset) -> ClassCounts:
    """Count over all images. Raises: DataError: a sample that cannot be used."""
    pixels = np.zeros(dataset.num_classes, dtype=np.int64)
    where_present = np.zeros_like(pixels)
    for index in range(len(dataset)):
        counts = _counts(dataset, index)
        pixels += counts
        where_present[counts > 0] += counts.sum()
    return ClassCounts(pixels, where_present)


def _counts(dataset: SegmentationDataset, index: int) -> NDArray[np.int64]:
    """Number of pixels of each class in one image, (num_classes,)."""
    length = max(dataset.num_classes, dataset.ignore_label + 1)
    counts = np.bincount(dataset.load(index).mask.ravel(), minlength=length)
    counts[dataset.ignore_label] = 0
    return counts[: dataset.num_classes]


def class_weights(kind: str, counts: ClassCounts) -> NDArray[np.float64]:
    """Weights of the cross-entropy, (num_classes,). A class that never occurs has weight 0 and no part in the median.

    `p` is a class's share of the labelled pixels, `f` its share of the pixels of the images that show it.
    none: 1 for every class. inverse: 1 / p, divided by the number of classes that occur, so 1 on average over pixels.
    enet: 1 / ln(1.02 + p), between 1.4 and 50 (ENet, Paszke et al. 2016, section 5.1).
    median_frequency: median of f / f (Eigen and Fergus 2015, section 6.3.2).
    """
    pixels, seen = counts.pixels, counts.pixels > 0
    if kind == "none":
        return np.ones(len(pixels))
    if kind == "inverse":
        weights = pixels.sum() / (max(1, seen.sum()) * np.maximum(1, pixels))
    elif kind == "enet":
        weights = 1 / np.log(1.02 + pixels / max(1, pixels.sum()))
    else:
        frequency = np.where(seen, pixels / np.maximum(1, counts.pixels_where_present), 1.0)
        weights = np.median(frequency[seen] if seen.any() else 1.0) / frequency
    return np.where(seen, weights, 0.0)


def repeat_factors(dataset: SegmentationDataset, indices: Sequence[int]) -> NDArray[np.float64]:
    """How many times as often to show each image as one that has common classes only, (len(indices),).

    An image's factor is the maximum over its classes of 1 / sqrt(f), where f is the share of these images that show
    the class: the repeat factor of LVIS (Gupta et al. 2019, section 5). The threshold is 1 instead of 0.001, because
    these data sets have few classes. An image without labelled pixels has the factor 1.
    Raises: DataError: a sample that cannot be used.
    """
    present = np.array([_counts(dataset, index) > 0 for index in indices])
    by_class = 1 / np.sqrt(np.maximum(present.mean(0), 1 / len(present)))
    factors: NDArray[np.float64] = np.where(present, by_class, 1.0).max(1)
    return factors


def channel_statistics(
    dataset: SegmentationDataset, images: int = STATISTICS_IMAGES, pixels_at_once: int = PIXELS_AT_ONCE
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of up to `images` images, evenly spaced.

    Both are shares of `full_scale`. A constant channel has the standard deviation 1, since images are divided by it.
    Raises: DataError: a sample that cannot be used.
    """
    count = min(images, len(dataset))
    pixels, sums = 0, np.zeros((2, dataset.load(0).image.shape[-1]))
    for number in range(count):
        image = dataset.load(number * len(dataset) // count).image
        flat = image.reshape(-1, image.shape[-1])
        for start in range(0, len(flat), pixels_at_once):
            values = flat[start : start + pixels_at_once].astype(np.float64) / full_scale(image.dtype)
            sums += values.sum(0), np.square(values).sum(0)
            pixels += len(values)
    mean, square = sums / pixels
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())
