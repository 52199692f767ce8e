"""The target of a loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """The labels of a batch and their weights."""

    masks: Tensor
    """(N, H, W) int64: 0..K-1 or the ignore label."""
    ignore_label: int
    class_weights: Tensor | None = None
    """(K,); default: 1 each."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7)."""
    whole: Tensor | None = None
    """The masks before `sample_pixels` thinned them. Default: `masks`."""

    @property
    def counted(self) -> Tensor:
        """(N, H, W) bool: the pixels that are not ignored."""
        return self.masks != self.ignore_label

    def one_hot(self, classes: int) -> Tensor:
        """(N, K, H, W) bool: the class of each pixel; an ignored pixel has none."""
        labels = torch.arange(classes, device=self.masks.device).view(1, -1, 1, 1)
        return (self.masks.unsqueeze(1) == labels) & self.counted.unsqueeze(1)

    def pixel_weights(self) -> Tensor:
        """(N, H, W): the weight of a pixel's class; 0 for an ignored pixel."""
        counted = self.counted
        if self.class_weights is None:
            return counted
        return self.class_weights[self.masks.where(counted, 0)] * counted
