"""The boundary F-score against a direct count of distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.metrics.details import BoundaryFScore


def boundary(labels: np.ndarray, of: int, ignore: int, mask: np.ndarray) -> list[tuple[int, int]]:
    """Pixels of a class with a neighbour of another one, by looking at each."""
    height, width = labels.shape
    found = []
    for row in range(height):
        for column in range(width):
            if labels[row, column] != of or mask[row, column] == ignore:
                continue
            around = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
            inside = [(r, c) for r, c in around if 0 <= r < height and 0 <= c < width and mask[r, c] != ignore]
            if any(labels[r, c] != of for r, c in inside):
                found.append((row, column))
    return found


def direct(predictions: np.ndarray, masks: np.ndarray, classes: int, ignore: int, tolerance: int) -> float:
    """Mean over classes of the mean over images of F."""

    def near(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        hits = [any((r - a) ** 2 + (c - b) ** 2 <= tolerance**2 for a, b in others) for r, c in points]
        return sum(hits) / len(points) if points else 0.0

    of_classes = []
    for label in range(classes):
        scores = []
        for predicted, mask in zip(predictions, masks, strict=True):
            true, found = (boundary(of, label, ignore, mask) for of in (mask, predicted))
            if true or found:
                precision, recall = near(found, true), near(true, found)
                scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        if scores:
            of_classes.append(sum(scores) / len(scores))
    return sum(of_classes) / len(of_classes)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
def test_equals_a_direct_count(tolerance: int) -> None:
    rng = np.random.default_rng(tolerance)
    masks = np.kron(rng.integers(0, 4, (3, 4, 5)), np.ones((1, 3, 3), dtype=np.int64))
    predictions = np.roll(masks, 1, 2)
    predictions[rng.random(masks.shape) < 0.05] = 2
    masks[rng.random(masks.shape) < 0.1] = 9
    metric = BoundaryFScore(5, ignore_label=9, tolerance=tolerance)
    for of in (slice(0, 2), slice(2, 3)):
        metric.update(torch.as_tensor(predictions[of]), torch.as_tensor(masks[of]))
    assert metric.mean() == pytest.approx(direct(predictions, masks, 5, 9, tolerance), abs=1e-12)
    assert metric.by_class()[4].isnan()


def test_as_many_classes_as_there_are() -> None:
    """Of 150, of which an image has a few; the batches change nothing."""
    rng = np.random.default_rng(5)
    masks = np.kron(rng.integers(0, 150, (2, 3, 4)), np.ones((1, 4, 4), dtype=np.int64))
    predictions = np.where(rng.random(masks.shape) < 0.1, rng.integers(0, 150, masks.shape), np.roll(masks, 1, 1))
    masks[:, :3, :3] = 65535
    expected = direct(predictions, masks, 150, 65535, 2)
    for batch_size in (1, 2):
        metric = BoundaryFScore(150, ignore_label=65535)
        for of in torch.arange(2).split(batch_size):
            metric.update(torch.as_tensor(predictions)[of], torch.as_tensor(masks)[of])
        assert metric.mean() == pytest.approx(expected, abs=1e-12)


def test_a_shift_within_the_tolerance_is_forgiven() -> None:
    mask = torch.zeros(1, 12, 12, dtype=torch.int64)
    mask[:, :, 6:] = 1
    shifted = torch.roll(mask, 2, 2)
    shifted[:, :, :2] = 0
    scores = []
    for tolerance in (1, 2):
        metric = BoundaryFScore(2, 255, tolerance)
        metric.update(shifted, mask)
        scores.append(metric.mean())
    assert scores == [0.0, 1.0]
