"""How well boundaries are met.

Letters: N images, K classes, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class BoundaryFScore:
    """Boundary F-score (Csurka et al. 2013): the harmonic mean of two shares of boundary pixels, of the predicted ones
    that have a true one within `tolerance` pixels (Euclidean), and of the true ones that have a predicted one.

    Each is taken of a class in an image, for classes that have a boundary there, true or predicted. A pixel lies on the
    boundary of its class where one of its four neighbours has another label; ignored pixels neither are nor make any.
    """

    def __init__(self, num_classes: int, ignore_label: int, tolerance: int = 2) -> None:
        self.num_classes, self.ignore_label, self.tolerance = num_classes, ignore_label, tolerance
        self._sums, self._counts = torch.zeros(num_classes, dtype=torch.float64), torch.zeros(num_classes)

    def update(self, predictions: Tensor, masks: Tensor) -> None:
        """Add (N, H, W) predicted labels and their (N, H, W) true ones."""
        valid = masks != self.ignore_label
        true, found = self._boundaries(masks, valid), self._boundaries(predictions, valid)
        near_true, near_found = (_dilate(of, self.tolerance) for of in (true, found))
        precision = _share((found * near_true).sum((2, 3)), found.sum((2, 3)))
        recall = _share((true * near_found).sum((2, 3)), true.sum((2, 3)))
        present = (true + found).amax((2, 3)) > 0
        score = _share(2 * precision * recall, precision + recall)
        self._sums += (score * present).sum(0).cpu()
        self._counts += present.sum(0).cpu()

    def by_class(self) -> Tensor:
        """(K,): the mean over the images in which a class has a boundary; NaN for one that has none anywhere."""
        return self._sums / torch.where(self._counts > 0, self._counts, torch.nan)

    def mean(self) -> float:
        """The mean of `by_class` over the classes that have a boundary."""
        return float(self.by_class().nanmean())

    def _boundaries(self, labels: Tensor, valid: Tensor) -> Tensor:
        """(N, K, H, W) of 0 and 1."""
        classes = torch.arange(self.num_classes, device=labels.device).view(1, -1, 1, 1)
        own = ((labels.unsqueeze(1) == classes) & valid.unsqueeze(1)).double()
        other = valid.unsqueeze(1).double() - own
        return own * _dilate(other, 1)


def _dilate(maps: Tensor, radius: int) -> Tensor:
    """1 where a pixel of (N, K, H, W) maps of 0 and 1 lies within `radius` (Euclidean)."""
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    disc = (steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2).to(maps.dtype)
    spread = F.conv2d(maps.flatten(0, 1).unsqueeze(1), disc[None, None], padding=radius)
    return (spread > 0).to(maps.dtype).view_as(maps)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0 where there is nothing."""
    return part / torch.where(whole > 0, whole, torch.ones_like(whole))
