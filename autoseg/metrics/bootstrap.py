"""Confidence intervals of a score by bootstrap over the images. Letters: N images, K classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 1000
BLOCK = 100
"""Resamples computed at once; memory is BLOCK * (N + 3 K) numbers."""


def miou_interval(
    counts: NDArray[np.int64], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap (Efron and Tibshirani 1993) of mIoU over images: the ends of a `level` interval.

    counts: (N, 3, K), for each image and class the correct pixels, the pixels of the class and those predicted as it.
    The unit is an image, since its pixels are correlated. Each resample draws N images with replacement and takes mIoU
    from their summed counts, over the classes that occur. The same seed gives the same interval. Returns None for fewer
    than two images or without counted pixels.
    """
    images = len(counts)
    if images < 2 or not counts.any():
        return None
    flat = counts.reshape(images, -1).astype(np.float64)  # exact for whole numbers, and fast in matrix products
    rng = np.random.default_rng(seed)
    mious = []
    for start in range(0, resamples, BLOCK):
        drawn = rng.integers(0, images, (min(BLOCK, resamples - start), images))
        times = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
        hits, true, found = (times @ flat).reshape(len(drawn), 3, -1).transpose(1, 0, 2)
        union = true + found - hits
        iou = np.divide(hits, union, out=np.zeros_like(hits), where=union > 0)
        occurring = (union > 0).sum(1)
        mious.append(iou.sum(1)[occurring > 0] / occurring[occurring > 0])
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(mious), [tail, 100 - tail])
    return float(low), float(high)
