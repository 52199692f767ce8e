"""Sizes of features and resizing between them: the one place where both are decided.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def level_size(image_size: Size, stride: int) -> Size:
    """(H, W) of a feature at `stride`: ceil(H / stride), ceil(W / stride); the papers' (n-1)/2+1 at odd sizes."""
    height, width = image_size
    return -(-height // stride), -(-width // stride)


def resize(features: Tensor, size: Size) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to `size` with aligned corners, as Auto-DeepLab's code; exact when equal."""
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)
