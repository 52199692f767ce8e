"""Groups of channels as axes of their own, without copying.

Letters: N images, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split_channels(features: Tensor, *groups: int) -> Tensor:
    """(N, G1*G2*..., H, W) in channels_last memory -> a view (N, H, W, G1, G2, ...)."""
    features = features.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = features.shape
    strides, step = [], channels
    for size in groups:
        step //= size
        strides.append(step)
    return features.as_strided(
        (images, height, width, *groups),
        (height * width * channels, width * channels, channels, *strides),
        features.storage_offset(),
    )


def join_channels(features: Tensor) -> Tensor:
    """(N, H, W, G1, G2, ...), contiguous -> a view (N, G1*G2*..., H, W) in channels_last memory."""
    images, height, width = features.shape[:3]
    channels = features.shape[3:].numel()
    strides = (height * width * channels, 1, width * channels, channels)
    return features.as_strided((images, channels, height, width), strides, features.storage_offset())
