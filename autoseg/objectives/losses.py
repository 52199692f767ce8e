"""Losses. Letters: N images, K classes, H height, W width."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def segmentation_loss(logits: Tensor, masks: Tensor, ignore_label: int, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy averaged over the pixels that are not ignored, by the weights of their classes.

    logits: (N, K, H, W); masks: (N, H, W); class_weights: (K,). In float32 where the logits are less precise.
    A batch with nothing to learn from has loss 0 and gradient 0, where PyTorch's mean is NaN.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits, masks, class_weights, ignore_index=ignore_label, reduction="sum")
    counted = masks != ignore_label
    weights = counted if class_weights is None else class_weights[masks.where(counted, 0)] * counted
    return total / weights.sum().clamp_min(1e-6)


def sample_pixels(masks: Tensor, share: float, ignore_label: int) -> Tensor:
    """Masks (N, H, W) of which each pixel is kept with probability `share`, by itself, and else ignored.

    The loss over what is kept has the gradient of training on the patches that those pixels see (Long et al. 2015,
    section 3.4). Drawn from PyTorch's random numbers on the masks' device; a share of 1 draws none.
    """
    if share == 1:
        return masks
    return masks.masked_fill(torch.rand(masks.shape, device=masks.device) >= share, ignore_label)
