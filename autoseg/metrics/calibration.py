"""Calibration of probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.ops.devices import float64_device


class Calibration:
    """Expected calibration error (Guo et al. 2017) and Brier score over the pixels that are not ignored.

    A pixel's confidence is its greatest probability. The error is the distance between mean confidence and accuracy in
    each of `bins` equal bins of confidence (the paper's 15), averaged by their pixels. The Brier score is the mean over
    pixels of the sum over classes of (probability - truth)², from 0 to 2.
    """

    def __init__(self, ignore_label: int, bins: int = 15) -> None:
        self.ignore_label, self.bins = ignore_label, bins
        self._pixels, self._confidence, self._right = (torch.zeros(bins, dtype=torch.float64) for _ in range(3))
        self._brier = 0.0

    def update(self, logits: Tensor, masks: Tensor) -> None:
        """Add logits, or log-probabilities, (N, K, H, W) and true labels (N, H, W)."""
        valid = masks != self.ignore_label
        truth = masks.where(valid, 0)
        probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
        greatest, found = probabilities.max(1)
        of_truth = probabilities.gather(1, truth.unsqueeze(1)).squeeze(1)
        squares = probabilities.square_().sum(1)
        exact = float64_device(masks.device)
        self._brier += float((squares - 2 * of_truth + 1)[valid].to(exact).double().sum())
        confidence, right = (part[valid].to(exact).double() for part in (greatest, found == truth))
        # bins are closed above, as in the paper
        places = (confidence * self.bins).ceil().long().sub_(1).clamp_(0, self.bins - 1)
        self._pixels += torch.bincount(places, minlength=self.bins).cpu()
        self._confidence += torch.bincount(places, confidence, minlength=self.bins).cpu()
        self._right += torch.bincount(places, right, minlength=self.bins).cpu()

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1; NaN before there are pixels."""
        return float((self._right - self._confidence).abs().sum() / self._pixels.sum())

    @property
    def brier(self) -> float:
        """The Brier score, 0 to 2; NaN before there are pixels."""
        return float(self._brier / self._pixels.sum())

    def reliability(self) -> dict[str, list[float | None]]:
        """Each bin's share of pixels, mean confidence and accuracy (None without pixels): the reliability diagram."""
        columns = {
            "share": self._pixels / self._pixels.sum(),
            "confidence": self._confidence / self._pixels,
            "accuracy": self._right / self._pixels,
        }
        lists = {name: column.tolist() for name, column in columns.items()}
        return {name: [None if value != value else value for value in values] for name, values in lists.items()}
