"""Calibration error and Brier score against the formulas, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.metrics.details import Calibration


def formulas(logits: np.ndarray, masks: np.ndarray, ignore: int, bins: int) -> tuple[float, float]:
    """Guo et al. 2017, eq. 3, and Brier 1950: every pixel put into ((m - 1) / bins, m / bins]."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    brier, pixels = 0.0, 0
    for n, y, x in np.ndindex(*masks.shape):
        if masks[n, y, x] == ignore:
            continue
        exponentials = [math.exp(value) for value in logits[n, :, y, x]]
        probabilities = [value / sum(exponentials) for value in exponentials]
        best = max(range(len(probabilities)), key=lambda k: probabilities[k])
        place = next(m for m in range(bins) if m / bins < probabilities[best] <= (m + 1) / bins)
        members[place].append((probabilities[best], best == masks[n, y, x]))
        brier += sum((p - (k == masks[n, y, x])) ** 2 for k, p in enumerate(probabilities))
        pixels += 1
    error = sum(abs(sum(right for _, right in of) - sum(p for p, _ in of)) for of in members) / pixels
    return error, brier / pixels


@pytest.mark.parametrize(("classes", "ignore", "bins"), [(2, 0, 15), (5, 255, 15), (150, 65535, 10)])
def test_equals_the_formulas(classes: int, ignore: int, bins: int) -> None:
    """Over batches, with ignored pixels, in float64 and nearly in float32."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(3, classes, 6, 7)) * 4
    masks = np.where(rng.random((3, 6, 7)) < 0.5, logits.argmax(1), rng.integers(0, classes, (3, 6, 7)))
    masks[rng.random(masks.shape) < 0.2] = ignore
    expected = formulas(logits, masks, ignore, bins)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        meter = Calibration(ignore, bins)
        for of in (slice(0, 2), slice(2, 3)):
            meter.update(torch.as_tensor(logits[of], dtype=dtype), torch.as_tensor(masks[of]))
        assert (meter.error, meter.brier) == pytest.approx(expected, abs=tolerance)


def test_one_who_is_as_sure_as_right_is_calibrated() -> None:
    """Three of four pixels right at 75%; then all wrong and sure."""
    logits = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1).expand(1, 2, 1, 4)
    meter = Calibration(255)
    meter.update(logits, torch.tensor([[[0, 0, 1, 0]]]))
    assert meter.error == pytest.approx(0, abs=1e-7)
    assert meter.brier == pytest.approx((3 * 2 * 0.25**2 + 2 * 0.75**2) / 4)
    assert meter.reliability()["share"] == [0.0] * 11 + [1.0] + [0.0] * 3  # 11/15 < 0.75 <= 12/15
    wrong = Calibration(255)
    wrong.update(torch.tensor([100.0, 0.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.int64))
    assert (wrong.error, wrong.brier) == pytest.approx((1, 2))
    assert wrong.reliability()["accuracy"] == [None] * 14 + [0.0]
    assert wrong.reliability()["confidence"] == [None] * 14 + [1.0]


def test_nothing_counted_is_not_a_number() -> None:
    meter = Calibration(255)
    meter.update(torch.zeros(1, 2, 3, 3), torch.full((1, 3, 3), 255))
    assert math.isnan(meter.error)
    assert math.isnan(meter.brier)
    assert meter.reliability()["share"] == [None] * 15
