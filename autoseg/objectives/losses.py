"""Losses. Letters: N images, K classes, H height, W width."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def segmentation_loss(logits: Tensor, masks: Tensor, ignore_label: int, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy averaged over the pixels that are not ignored, by the weights of their classes.

    logits: (N, K, H, W); masks: (N, H, W); class_weights: (K,). In float32 whatever the precision of the logits.
    A batch with nothing to learn from has loss 0 and gradient 0, where PyTorch's mean is NaN.
    """
    total = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_label, reduction="sum")
    counted = masks != ignore_label
    weights = counted if class_weights is None else class_weights[masks.where(counted, 0)] * counted
    return total / weights.sum().clamp_min(1e-6)
