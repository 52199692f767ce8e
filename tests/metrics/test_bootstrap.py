"""The interval of mIoU against exact quantiles and against resamples counted by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from autoseg.metrics.confusion import miou_interval


def test_equals_the_quantiles_of_a_binomial_distribution() -> None:
    """40 images of one pixel of class 0, of which 28 are right: mIoU of a resample is its right ones / 80."""
    right = np.arange(40) < 28
    counts = np.zeros((40, 3, 2), dtype=np.int64)
    counts[:, 0, 0] = right
    counts[:, 1, 0] = 1
    counts[:, 2, 0], counts[:, 2, 1] = right, ~right
    chances = [math.comb(40, k) * 0.7**k * 0.3 ** (40 - k) for k in range(41)]
    below = np.cumsum(chances)
    interval = miou_interval(counts)
    assert interval is not None
    for found, share in zip(interval, (0.025, 0.975), strict=True):
        assert found * 80 == pytest.approx(int((below < share).sum()), abs=1.01)  # a thousand resamples, not all


@pytest.mark.parametrize("resamples", [7, 100, 230])
def test_a_resample_is_counted_over_the_classes_that_occur_in_it(resamples: int) -> None:
    """As many resamples as are asked for, also where they are no whole blocks."""
    rng = np.random.default_rng(0)
    counts = np.zeros((4, 3, 6), dtype=np.int64)
    counts[:, 0] = rng.integers(1, 50, (4, 6))
    counts[:, 1] = counts[:, 0] + rng.integers(0, 50, (4, 6))
    counts[:, 2] = counts[:, 0] + rng.integers(0, 50, (4, 6))
    counts[:, :, 5] = 0  # never there
    counts[:3, :, 4] = 0  # in one image alone
    mious = []
    for drawn in np.random.default_rng(7).integers(0, 4, (resamples, 4)):
        shares = []
        for label in range(6):
            hits, true, found = (sum(int(counts[image, row, label]) for image in drawn) for row in range(3))
            if true + found - hits:
                shares.append(hits / (true + found - hits))
        mious.append(sum(shares) / len(shares))
    expected = np.percentile(mious, [5, 95])
    assert miou_interval(counts, level=0.9, resamples=resamples, seed=7) == pytest.approx(expected, abs=1e-12)


def test_more_images_make_it_narrower_and_equal_ones_a_point() -> None:
    rng = np.random.default_rng(1)
    hits = rng.integers(20, 80, (400, 1))
    counts = np.stack([hits, np.full_like(hits, 100), np.full_like(hits, 100)], 1)
    widths = [high - low for low, high in (miou_interval(counts[:n]) or (0, 0) for n in (25, 100, 400))]
    for wide, narrow in pairwise(widths):
        assert narrow == pytest.approx(wide / 2, rel=0.25)
    same = miou_interval(np.repeat(counts[:1], 9, 0))
    assert same is not None
    assert same[0] == pytest.approx(same[1], abs=1e-12)


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = np.random.default_rng(2).integers(1, 9, (12, 3, 4)) + np.array([[[0], [9], [9]]])
    assert miou_interval(counts) == miou_interval(counts)
    assert miou_interval(counts) != miou_interval(counts, seed=1)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_too_few_images_have_none(images: int) -> None:
    assert miou_interval(np.zeros((images, 3, 2), dtype=np.int64)) is None
    if images < 2:
        assert miou_interval(np.ones((images, 3, 2), dtype=np.int64)) is None
