"""The confusion matrix of a whole set, and its scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.ops.devices import float64_device

BLOCK = 100
"""Resamples computed at once; memory is BLOCK * (N + 3 K) numbers."""


class ConfusionMatrix:
    """Counts pixels by true class (rows) and predicted class (columns); pixels with the ignore label do not count.

    It keeps 3 K numbers of each image, not its matrix. They stay on the device until `scores` asks for them.
    """

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self._counts: Tensor | None = None
        self._images: list[Tensor] = []

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Add (N, H, W) predicted labels and their (N, H, W) true ones, without waiting for the device."""
        place = float64_device(masks.device)
        predicted, true = (labels.to(place).flatten(1).long() for labels in (predictions, masks))
        counted = true != self.ignore_label
        pairs = torch.where(counted, true * self.num_classes + predicted, 0)
        # sums of whole numbers are exact in any order; bincount would fetch the largest pair from the device
        counts = pairs.new_zeros(len(pairs), self.num_classes**2).scatter_add_(1, pairs, counted.long())
        counts = counts.view(-1, self.num_classes, self.num_classes)
        self._counts = counts.sum(0) if self._counts is None else self._counts + counts.sum(0)
        self._images.append(torch.stack([counts.diagonal(dim1=1, dim2=2), counts.sum(2), counts.sum(1)], 1))

    def scores(self, classes: tuple[str, ...]) -> Scores:
        """The scores of everything added so far."""
        if self._counts is None:
            return Scores(np.zeros((self.num_classes, self.num_classes), dtype=np.int64), classes)
        return Scores(self._counts.cpu().numpy().copy(), classes, torch.cat(self._images).cpu().numpy())


@dataclass(frozen=True)
class Scores:
    """Scores of a (K, K) confusion matrix over a whole set, from 0 to 1. A mean over classes leaves out NaN."""

    confusion: np.ndarray
    classes: tuple[str, ...]
    images: np.ndarray | None = None
    """(N, 3, K), for each image and class: correct pixels, pixels of the class, pixels predicted as it."""

    @cached_property
    def _hits(self) -> np.ndarray:
        return np.diag(self.confusion).astype(np.float64)

    @cached_property
    def pixel_share(self) -> np.ndarray:
        """Share of each class in the counted pixels, (K,)."""
        return _share(self.confusion.sum(1).astype(np.float64), np.full(len(self.confusion), self.confusion.sum()))

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (K,); NaN for a class that is neither true nor predicted anywhere."""
        return _share(self._hits, self.confusion.sum(0) + self.confusion.sum(1) - self._hits)

    @cached_property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return _mean(self.iou)

    @cached_property
    def miou_interval(self) -> tuple[float, float] | None:
        """95% interval of `miou` by bootstrap over the images; None for fewer than two images."""
        return None if self.images is None else miou_interval(self.images)

    @cached_property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou` weighted by the classes' shares of the pixels (Long et al. 2015)."""
        return float(np.nansum(self.iou * self.pixel_share)) if self.confusion.any() else float("nan")

    @cached_property
    def dice(self) -> np.ndarray:
        """Dice coefficient of each class, (K,), which is its F1 score over pixels; NaN where `iou` is."""
        return _share(2 * self._hits, self.confusion.sum(0) + self.confusion.sum(1))

    @cached_property
    def mean_dice(self) -> float:
        """Mean of `dice` over the classes that occur."""
        return _mean(self.dice)

    @cached_property
    def pixel_accuracy(self) -> float:
        """Share of pixels with the right label."""
        total = self.confusion.sum()
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @cached_property
    def mean_accuracy(self) -> float:
        """Mean recall of the classes that occur in the truth."""
        return _mean(_share(self._hits, self.confusion.sum(1)))

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; a class that does not occur has None."""
        return {
            "miou": plain(self.miou),
            "miou_interval": None if self.miou_interval is None else list(self.miou_interval),
            "frequency_weighted_iou": plain(self.frequency_weighted_iou),
            "mean_dice": plain(self.mean_dice),
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "iou": by_name(self.classes, self.iou),
            "dice": by_name(self.classes, self.dice),
            "pixel_share": by_name(self.classes, self.pixel_share),
            "confusion": self.confusion.tolist(),
        }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    share: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return share


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def miou_interval(
    counts: NDArray[np.int64], level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap (Efron and Tibshirani 1993) of mIoU over images: the ends of a `level` interval.

    counts: (N, 3, K), for each image and class the correct pixels, the pixels of the class and those predicted as it.
    The unit is an image, since its pixels are correlated. Each resample draws N images with replacement and takes mIoU
    from their summed counts, over the classes that occur. The same seed gives the same interval. Returns None for fewer
    than two images or without counted pixels.
    """
    if len(counts) < 2 or not counts.any():
        return None
    return _percentiles(_resampled_mious(counts, resamples, seed), level)


def miou_difference_interval(
    before: NDArray[np.int64], after: NDArray[np.int64], level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """As `miou_interval`, of the mIoU of `after` minus that of `before` on the same images in the same order.

    Both take the same images in each resample, so that what makes an image hard for both cancels out.
    Raises: ValueError: another number of images.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} images cannot be paired with {len(after)}")
    if len(before) < 2 or not (before.any() and after.any()):
        return None
    return _percentiles(_resampled_mious(after, resamples, seed) - _resampled_mious(before, resamples, seed), level)


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = 50 * (1 - level)
    low, high = np.percentile(values[np.isfinite(values)], [tail, 100 - tail])
    return float(low), float(high)


def _resampled_mious(counts: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.float64]:
    """mIoU of each resample, (resamples,); NaN without counted pixels. The draws depend on N and the seed alone."""
    images = len(counts)
    flat = counts.reshape(images, -1).astype(np.float64)  # exact for whole numbers, and fast in matrix products
    rng = np.random.default_rng(seed)
    mious = []
    for start in range(0, resamples, BLOCK):
        drawn = rng.integers(0, images, (min(BLOCK, resamples - start), images))
        times = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
        hits, true, found = (times @ flat).reshape(len(drawn), 3, -1).transpose(1, 0, 2)
        union = true + found - hits
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
        mious.append(_share(iou.sum(1), (union > 0).sum(1)))
    return np.concatenate(mious)


def plain(value: float) -> float | None:
    """A number for JSON; None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def by_name(classes: Sequence[str], values: Iterable[float]) -> dict[str, float | None]:
    """(K,) values by class for JSON."""
    return {name: plain(value) for name, value in zip(classes, values, strict=True)}
