"""Sizes of features and resizing between them: the one place where both are decided.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]


def level_size(image_size: Size, stride: int) -> Size:
    """(H, W) of a feature at `stride`: ceil(H / stride), ceil(W / stride); the papers' (n-1)/2+1 at odd sizes."""
    height, width = image_size
    # not -(-n // stride), the same number: torch.export can tell this form to be what a strided convolution leaves
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def resize(features: Tensor, size: Size) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to `size` with aligned corners, as Auto-DeepLab's code; exact when equal."""
    if torch.compiler.is_exporting():
        return _resize_any(features, size)
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)


# --- while exporting, where sizes are symbols that stand for every image ---------------------------------------------


def _resize_any(features: Tensor, size: Size) -> Tensor:
    """`resize` without a comparison of sizes, which would tie the graph to its answer for the example image.

    Sizes that are equal for every image need nothing. Where they are so for some images only, aligned corners are the
    identity for those. PyTorch's own shape rule of interpolation asks whether the result has a single row, which
    would shut out images of 32 pixels at stride 32: such a result is interpolated one axis after the other.
    """
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if all(statically_known_true(one == another) for one, another in zip(features.shape[-2:], size, strict=True)):
        return features
    if all(statically_known_true(length > 1) for length in size):
        return F.interpolate(features, size=size, mode="bilinear", align_corners=True)
    return _interpolate_axis(_interpolate_axis(features, size[0], 2), size[1], 3)


def _interpolate_axis(features: Tensor, length: int, axis: int) -> Tensor:
    """Linear interpolation with aligned corners of one axis; the positions are exact fractions."""
    last = features.shape[axis] - 1
    steps = torch.arange(length, device=features.device)
    intervals = steps.amax(0).clamp(min=1)
    before = steps * last // intervals
    share = (steps * last - before * intervals).to(features.dtype) / intervals
    share = share.view(-1, *(1 for _ in range(3 - axis)))
    left = features.index_select(axis, before)
    return left + share * (features.index_select(axis, (before + 1).clamp(max=last)) - left)
