"""Sizes of features, and resizing between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.ops.devices import without_autocast

Size = tuple[int, int]


def level_size(image_size: Size, stride: int) -> Size:
    """(H, W) of a feature at `stride`: ceil(H / stride), ceil(W / stride); the papers' (n-1)/2+1 at odd sizes."""
    height, width = image_size
    # not -(-n // stride), the same number: torch.export knows this form to be the size of a strided convolution
    return (height - 1) // stride + 1, (width - 1) // stride + 1


def resize(features: Tensor, size: Size) -> Tensor:
    """Bilinear resizing of (N, C, H, W) to `size` with aligned corners, as Auto-DeepLab's code; exact when equal."""
    if torch.compiler.is_exporting():
        return _resize_any(features, size)
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)


def sum_resized(features: Sequence[Tensor], size: Size) -> Tensor:
    """The sum of (N, C, h, w) features of any sizes, each resized to `size` as by `resize`: (N, C, H, W), contiguous.

    Bilinear resizing is a matrix product for each axis, and the second product takes all features at once: on a CPU six
    times as fast as interpolating each. It computes in float32 at least, also under autocast.
    """
    dtype = torch.promote_types(features[0].dtype, torch.float32)
    with without_autocast(features[0]):
        wide, down = [], []
        for feature in features:
            across = _weights(feature.shape[3], size[1], feature.device, dtype)
            square = feature.shape[2] == feature.shape[3] and size[0] == size[1]
            down.append(across if square else _weights(feature.shape[2], size[0], feature.device, dtype))
            wide.append(feature.to(dtype).contiguous() @ across)
        stacked = torch.cat(wide, 2)
        images, channels = stacked.shape[:2]
        rows = torch.cat(down).T.expand(images * channels, -1, -1)
        return torch.bmm(rows, stacked.flatten(0, 1)).view(images, channels, *size)


def _weights(before: int, after: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(before, after): weight of each source pixel of an axis in each pixel of the result."""
    units = torch.eye(before, device=device, dtype=dtype).unsqueeze(0)
    return F.interpolate(units, after, mode="linear", align_corners=True)[0]


# --- while exporting, where sizes are symbols that stand for every image ---------------------------------------------


def _resize_any(features: Tensor, size: Size) -> Tensor:
    """`resize` without a comparison of sizes, which would tie the graph to the example image.

    Sizes that are equal for every image need nothing. If they are equal for some images, aligned corners are the
    identity for those. PyTorch's shape rule of interpolation asks whether the result has a single row, which would
    exclude images of 32 pixels at stride 32: such a result is interpolated one axis after the other.
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
