"""What is measured on a whole set: the confusion matrix and the scores that follow from it.

Letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts pixels by true class (rows) and predicted class (columns); pixels with the ignore label do not count."""

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self._counts: Tensor | None = None

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Add (N, H, W) predicted labels and their (N, H, W) true ones."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix  # slow to import

        counts = multiclass_confusion_matrix(
            predictions, masks, self.num_classes, ignore_index=self.ignore_label, validate_args=False
        ).to(torch.int64)
        self._counts = counts if self._counts is None else self._counts + counts

    def scores(self, classes: tuple[str, ...]) -> Scores:
        """The scores of everything added so far."""
        shape = (self.num_classes, self.num_classes)
        counts = np.zeros(shape, dtype=np.int64) if self._counts is None else self._counts.cpu().numpy()
        return Scores(counts, classes)


@dataclass(frozen=True)
class Scores:
    """Scores of a (K, K) confusion matrix over a whole set; all are shares from 0 to 1."""

    confusion: np.ndarray
    classes: tuple[str, ...]

    @cached_property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, (K,); NaN for a class that is neither there nor predicted."""
        hits = np.diag(self.confusion).astype(np.float64)
        return _share(hits, self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @cached_property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return _mean(self.iou)

    @cached_property
    def pixel_accuracy(self) -> float:
        """Share of pixels with the right label."""
        total = self.confusion.sum()
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @cached_property
    def mean_accuracy(self) -> float:
        """Mean over the classes that are there of the share of their pixels found."""
        return _mean(_share(np.diag(self.confusion).astype(np.float64), self.confusion.sum(1)))

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; a class that does not occur has null."""
        return {
            "miou": _plain(self.miou),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "mean_accuracy": _plain(self.mean_accuracy),
            "iou": {name: _plain(value) for name, value in zip(self.classes, self.iou, strict=True)},
            "confusion": self.confusion.tolist(),
        }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    share: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return share


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
