"""Scores against direct counting."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from autoseg.metrics.confusion import ConfusionMatrix, Scores

CLASSES = ("a", "b", "c", "d", "e")


def labels(seed: int, ignore_label: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and true labels (3, 8, 9) of classes 0 to 2, some of the latter ignored; 3 is predicted only."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (3, 8, 9))
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 4, truth.shape))
    truth[rng.random(truth.shape) < 0.2] = ignore_label
    return predicted, truth


def counted(batches: list[tuple[np.ndarray, np.ndarray]], ignore_label: int) -> np.ndarray:
    counts = np.zeros((5, 5), dtype=int)
    for predicted, truth in batches:
        for p, t in zip(predicted.flat, truth.flat, strict=True):
            if t != ignore_label:
                counts[t, p] += 1
    return counts


@pytest.mark.parametrize("ignore_label", [255, -1, 0, 2])
def test_scores_equal_direct_counting(ignore_label: int) -> None:
    """Over several batches, with an ignore label outside the classes and among them."""
    batches = [labels(seed, ignore_label) for seed in range(3)]
    matrix = ConfusionMatrix(5, ignore_label)
    for predicted, truth in batches:
        matrix.update(torch.as_tensor(predicted), torch.as_tensor(truth))
    scores, counts = matrix.scores(CLASSES), counted(batches, ignore_label)
    np.testing.assert_array_equal(scores.confusion, counts)

    predicted = np.concatenate([p.ravel() for p, _ in batches])
    truth = np.concatenate([t.ravel() for _, t in batches])
    predicted, truth = predicted[truth != ignore_label], truth[truth != ignore_label]
    iou, recall = [], []
    for label in range(5):
        union = ((predicted == label) | (truth == label)).sum()
        both = ((predicted == label) & (truth == label)).sum()
        iou.append(both / union if union else math.nan)
        recall.append(both / (truth == label).sum() if (truth == label).any() else math.nan)
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12)
    assert math.isnan(scores.iou[4])
    assert scores.iou[3] == 0
    assert scores.miou == pytest.approx(np.nanmean(iou), rel=1e-12)
    assert scores.mean_accuracy == pytest.approx(np.nanmean(recall), rel=1e-12)
    assert scores.pixel_accuracy == pytest.approx((predicted == truth).mean(), rel=1e-12)
    shares = [(truth == label).mean() for label in range(5)]
    np.testing.assert_allclose(scores.pixel_share, shares, rtol=1e-12)
    dice = [2 * share / (1 + share) for share in iou]  # of the same two areas
    np.testing.assert_allclose(scores.dice, dice, rtol=1e-12)
    assert scores.mean_dice == pytest.approx(np.nanmean(dice), rel=1e-12)
    weighted = sum(share * one for share, one in zip(shares, iou, strict=True) if not math.isnan(one))
    assert scores.frequency_weighted_iou == pytest.approx(weighted, rel=1e-12)


def test_each_image_is_kept_by_itself() -> None:
    """Whether it comes alone or in a batch."""
    predicted, truth = (torch.as_tensor(part) for part in labels(0, 255))
    kept = []
    for sizes in ((3,), (1, 2)):
        matrix = ConfusionMatrix(5, 255)
        for batch in zip(predicted.split(sizes), truth.split(sizes), strict=True):
            matrix.update(*batch)
        kept.append(matrix.scores(CLASSES))
    assert kept[0].images is not None
    assert kept[0].images.shape == (3, 3, 5)
    np.testing.assert_array_equal(kept[0].images, kept[1].images)
    np.testing.assert_array_equal(kept[0].images.sum(0)[1], kept[0].confusion.sum(1))
    for number, (p, t) in enumerate(zip(predicted, truth, strict=True)):
        counts = counted([(p.numpy(), t.numpy())], 255)
        np.testing.assert_array_equal(kept[0].images[number], [np.diag(counts), counts.sum(1), counts.sum(0)])
    assert kept[0].miou_interval is not None
    low, high = kept[0].miou_interval
    assert low < kept[0].miou < high


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_many_classes_in_any_type(dtype: torch.dtype) -> None:
    """150 classes: the number of a pair is far above what uint8 holds."""
    rng = np.random.default_rng(1)
    predicted, truth = rng.integers(0, 150, (2, 2, 30, 40))
    truth[:, :9] = 255
    matrix = ConfusionMatrix(150, 255)
    matrix.update(torch.as_tensor(predicted).to(dtype), torch.as_tensor(truth).to(dtype))
    expected = np.zeros((150, 150), dtype=np.int64)
    np.add.at(expected, (truth[truth != 255], predicted[truth != 255]), 1)
    np.testing.assert_array_equal(matrix.scores(tuple(map(str, range(150)))).confusion, expected)


@pytest.mark.gpu
def test_a_gpu_counts_the_same_and_nothing_waits_for_it() -> None:
    on_cpu, on_gpu = ConfusionMatrix(5, 255), ConfusionMatrix(5, 255)
    for seed in range(2):
        predicted, truth = (torch.as_tensor(part) for part in labels(seed, 255))
        on_cpu.update(predicted, truth)
        there = predicted.cuda(), truth.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            on_gpu.update(*there)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    some, other = on_cpu.scores(CLASSES), on_gpu.scores(CLASSES)
    np.testing.assert_array_equal(some.confusion, other.confusion)
    np.testing.assert_array_equal(some.images, other.images)


def test_perfect_predictions_score_one_whatever_is_absent() -> None:
    matrix = ConfusionMatrix(5, 255)
    truth = torch.tensor([[[0, 2], [2, 255]]])
    matrix.update(truth.where(truth != 255, 1), truth)
    scores = matrix.scores(CLASSES)
    assert (scores.miou, scores.pixel_accuracy, scores.mean_accuracy) == (1, 1, 1)


@pytest.mark.parametrize("updates", [0, 1])
def test_scores_of_nothing_are_not_numbers_and_null_in_json(updates: int) -> None:
    matrix = ConfusionMatrix(2, 255)
    for _ in range(updates):
        matrix.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 255))
    scores = matrix.scores(("a", "b"))
    assert scores.confusion.tolist() == [[0, 0], [0, 0]]
    assert np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_accuracy, *scores.iou]).all()
    assert json.loads(json.dumps(scores.to_dict())) == {
        "miou": None,
        "miou_interval": None,
        "frequency_weighted_iou": None,
        "mean_dice": None,
        "pixel_accuracy": None,
        "mean_accuracy": None,
        "iou": {"a": None, "b": None},
        "dice": {"a": None, "b": None},
        "pixel_share": {"a": None, "b": None},
        "confusion": [[0, 0], [0, 0]],
    }


def test_plain_data_has_every_score_by_name() -> None:
    data = Scores(np.array([[3, 1], [0, 4]]), ("road", "car")).to_dict()
    assert data["iou"] == {"road": 3 / 4, "car": 4 / 5}
    assert data["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert data["pixel_accuracy"] == 7 / 8
    assert data["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert data["confusion"] == [[3, 1], [0, 4]]
    assert data["dice"] == {"road": 6 / 7, "car": 8 / 9}
    assert data["mean_dice"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    assert data["pixel_share"] == {"road": 1 / 2, "car": 1 / 2}
    assert data["miou_interval"] is None
