"""How often each class occurs and what follows from it, and the mean and spread of the colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.data.augment.sample import full_scale
from autoseg.data.base import SegmentationDataset

STATISTICS_IMAGES = 256
"""At most so many images are read for the mean and the spread of the colours."""
PIXELS_AT_ONCE = 2**20


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
    for index in range(len(dataset)):
        counts = _counts(dataset, index)
        pixels += counts
        where_present[counts > 0] += counts.sum()
    return ClassCounts(pixels, where_present)


def _counts(dataset: SegmentationDataset, index: int) -> NDArray[np.int64]:
    """Pixels of each class in one image, (num_classes,)."""
    length = max(dataset.num_classes, dataset.ignore_label + 1)
    counts = np.bincount(dataset.load(index).mask.ravel(), minlength=length)
    counts[dataset.ignore_label] = 0
    return counts[: dataset.num_classes]


def class_weights(kind: str, counts: ClassCounts) -> NDArray[np.float64]:
    """Weights of the cross-entropy, (num_classes,): `none`, `inverse`, `enet` or `median_frequency`.

    Not normalised, or as the papers have them. A class that never occurs has weight 0, and no part in the median.
    """
    return WEIGHTINGS[kind](counts)


def _none(counts: ClassCounts) -> NDArray[np.float64]:
    return np.ones(len(counts.pixels))


def _inverse(counts: ClassCounts) -> NDArray[np.float64]:
    """1 / p by the number of classes that occur, p the class's share of the labelled pixels: 1 on average of pixels."""
    seen = counts.pixels > 0
    return np.where(seen, counts.pixels.sum() / (max(1, seen.sum()) * np.maximum(1, counts.pixels)), 0.0)


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
    "inverse": _inverse,
    "enet": _enet,
    "median_frequency": _median_frequency,
}


def repeat_factors(dataset: SegmentationDataset, indices: Sequence[int]) -> NDArray[np.float64]:
    """How much more often to show each of some images than one that has common classes alone, (len(indices),).

    The greatest over its classes of 1 / sqrt(f), f the share of these images in which a class occurs: the repeat factor
    of LVIS (Gupta et al. 2019, section 5), with a threshold of 1, since sets have few classes here and none is nearly
    as rare as theirs, 0.001. 1 for an image in which all is ignored. Raises: DataError: a sample that cannot be used.
    """
    present = np.array([_counts(dataset, index) > 0 for index in indices])
    by_class = 1 / np.sqrt(np.maximum(present.mean(0), 1 / len(present)))
    factors: NDArray[np.float64] = np.where(present, by_class, 1.0).max(1)
    return factors


def channel_statistics(
    dataset: SegmentationDataset, images: int = STATISTICS_IMAGES
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of up to `images` images, evenly spaced.

    In shares of the full scale (`full_scale`); 1 where a channel never varies, so that it can be divided by.
    Raises: DataError: a sample that cannot be used.
    """
    count = min(images, len(dataset))
    pixels, sums = 0, np.zeros((2, dataset.load(0).image.shape[-1]))
    for number in range(count):
        image = dataset.load(number * len(dataset) // count).image
        flat = image.reshape(-1, image.shape[-1])
        for start in range(0, len(flat), PIXELS_AT_ONCE):
            values = flat[start : start + PIXELS_AT_ONCE].astype(np.float64) / full_scale(image.dtype)
            sums += values.sum(0), np.square(values).sum(0)
            pixels += len(values)
    mean, square = sums / pixels
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist())
