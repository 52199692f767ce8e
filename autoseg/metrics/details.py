"""Optional, slower measurements: boundary F-score and calibration of probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.metrics.confusion import by_name, plain
from autoseg.ops.boundaries import on_boundary
from autoseg.ops.devices import float64_device

NOWHERE = -1
"""Label of a pixel that is ignored or lies on no boundary."""


class BoundaryFScore:
    """Boundary F-score (Csurka et al. 2013): the harmonic mean of precision and recall of boundary pixels.

    Precision is the share of predicted boundary pixels that have a true one within `tolerance` pixels (Euclidean),
    recall the converse, for each image and each class with a true or predicted boundary in it (see `on_boundary`).
    Time grows with tolerance² * H * W and does not depend on K.
    """

    def __init__(self, num_classes: int, ignore_label: int, tolerance: int = 2) -> None:
        self.num_classes, self.ignore_label, self.tolerance = num_classes, ignore_label, tolerance
        steps = range(-tolerance, tolerance + 1)
        self._disc = [(dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx <= tolerance * tolerance]
        self._sums, self._counts = (torch.zeros(num_classes, dtype=torch.float64) for _ in range(2))

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Add (N, H, W) predicted labels and their (N, H, W) true ones."""
        valid = masks != self.ignore_label
        marked = (labels.int().where(valid, NOWHERE) for labels in (masks, predictions))
        true, found = (labels.where(on_boundary(labels, NOWHERE), NOWHERE) for labels in marked)
        met_true, met_found = torch.zeros_like(valid), torch.zeros_like(valid)
        for near_true, near_found in zip(_shifted(true, self._disc), _shifted(found, self._disc), strict=True):
            met_found |= near_true == found
            met_true |= near_found == true
        found_count, true_count = self._count(found), self._count(true)
        precision = _share(self._count(found.where(met_found, NOWHERE)), found_count)
        recall = _share(self._count(true.where(met_true, NOWHERE)), true_count)
        score = _share(2 * precision * recall, precision + recall)
        for row in score:  # one by one: the sum does not depend on the batches
            self._sums += row
        self._counts += (found_count + true_count > 0).sum(0)

    def by_class(self) -> Tensor:
        """(K,): mean over the images in which a class has a boundary; NaN for a class without any."""
        return self._sums / torch.where(self._counts > 0, self._counts, torch.nan)

    def mean(self) -> float:
        """Mean of `by_class` over the classes that have a boundary."""
        return float(self.by_class().nanmean())

    def _count(self, labels: Tensor) -> Tensor:
        """(N, K) float64 on the CPU: pixels of each class in each image of `labels`, (N, H, W) with NOWHERE."""
        there = labels != NOWHERE
        image = torch.arange(len(labels), device=labels.device).view(-1, 1, 1) * self.num_classes
        counts = torch.bincount((labels + image)[there], minlength=len(labels) * self.num_classes)
        return counts.view(len(labels), -1).cpu().double()


def _shifted(labels: Tensor, offsets: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """For each offset (dy, dx) the labels (N, H, W) at that offset from each pixel; NOWHERE outside."""
    height, width = labels.shape[1:]
    reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
    framed = F.pad(labels, (reach, reach, reach, reach), value=NOWHERE)
    for dy, dx in offsets:
        yield framed[:, reach + dy : reach + dy + height, reach + dx : reach + dx + width]


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 where the whole is 0."""
    return part / torch.where(whole > 0, whole, torch.ones_like(whole))


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


class Details:
    """Both measurements of one set of predictions."""

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        self.boundary = BoundaryFScore(num_classes, ignore_label)
        self.calibration = Calibration(ignore_label)

    def to_dict(self, classes: Sequence[str]) -> dict[str, object]:
        """Plain data for JSON; null for scores of classes that do not occur."""
        return {
            "boundary_f": plain(self.boundary.mean()),
            "boundary_tolerance": self.boundary.tolerance,
            "boundary_f_by_class": by_name(classes, self.boundary.by_class().tolist()),
            "expected_calibration_error": plain(self.calibration.error),
            "brier_score": plain(self.calibration.brier),
            "reliability": self.calibration.reliability(),
        }
