"""The upsamplers: each doubles height and width, (N, Cin, H, W) -> (N, Cout, 2H, 2W), or to `size`, which may be one
less in either. MaxUnpool alone reads `guide`, the feature that the matching pooling read.

All are built with (in_channels, out_channels, ...options) and called with (features, size=None, guide=None). Nearest,
bilinear, max-unpooling, CARAFE and DySample mix no channels themselves. A 1x1 convolution before them makes every
upsampler a learned map between the widths, equal ones included, so that a comparison is fair. Before them it does the
same as behind, at a quarter of the cost. No upsampler has a normalisation.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import SearchSpaceError
from autoseg.ops.check import check_upsampler
from autoseg.ops.interleave import ROW_BY_ROW, cut, interleave
from autoseg.ops.layers import pointwise
from autoseg.ops.resize import Size, level_size, resize
from autoseg.space.resolution import find_upsampler


class _Projected(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = pointwise(in_channels, out_channels)


class Nearest(_Projected):
    """1x1 convolution, then every pixel four times."""

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the module."""
        doubled = (2 * features.shape[2], 2 * features.shape[3])
        return cut(F.interpolate(self.project(features), doubled, mode="nearest"), size)


class Bilinear(_Projected):
    """1x1 convolution, then bilinear resizing straight to the size, with aligned corners as Auto-DeepLab's code."""

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the module."""
        return resize(self.project(features), size or (2 * features.shape[2], 2 * features.shape[3]))


class TransposedConv(nn.Module):
    """Transposed convolution: kernel 4, stride 2, padding 1, no bias.

    init: "bilinear" begins as bilinear interpolation (Long et al. 2015), of random mixtures if the widths differ.
    """

    def __init__(self, in_channels: int, out_channels: int, init: Literal["default", "bilinear"] = "default") -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        if init == "bilinear":
            hat = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
            mixture = torch.eye(in_channels)
            if in_channels != out_channels:
                mixture = pointwise(in_channels, out_channels).weight.detach()[:, :, 0, 0].T
            with torch.no_grad():
                self.conv.weight.copy_(torch.einsum("io,h,w->iohw", mixture, hat, hat))

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the module."""
        return cut(self.conv(features), size)


class PixelShuffle(nn.Module):
    """Sub-pixel convolution (Shi et al. 2016): a 3x3 convolution to four times the channels, which become 2x2 pixels.

    3x3 as published: a 1x1 would never mix neighbouring pixels. init: "icnr" (Aitken et al. 2017) gives the four pixels
    the same kernel: it begins as nearest-neighbour interpolation of a convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, init: Literal["default", "icnr"] = "default") -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=False)
        if init == "icnr":
            with torch.no_grad():
                self.conv.weight.copy_(self.conv.weight[::4].repeat_interleave(4, 0))

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the module."""
        return cut(F.pixel_shuffle(self.conv(features), 2), size)


class MaxUnpool(_Projected):
    """1x1 convolution, then unpooling (Noh et al. 2015, SegNet): a pixel goes to where the 2x2 maximum of `guide` was.

    Means over groups of neighbouring channels of the guide (N, Cg, H, W) give Cout: weights would get no gradient.
    """

    reads_guide = True

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class and the module. Raises: SearchSpaceError: no guide."""
        if guide is None:
            message = "unpooling needs the feature of the matching pooling, and here is none; take another upsampler"
            raise SearchSpaceError(message, code="unpooling-without-pooling")
        features = self.project(features)
        return unpool(features, to_width(guide.detach(), features.shape[1]), size)


def unpool(features: Tensor, guide: Tensor, size: Size | None = None) -> Tensor:
    """Put each pixel of (N, C, h, w) where the maximum of its 2x2 window of `guide` (N, C, H, W) is, zeros elsewhere.

    Its size is the guide's or `size`. As in `max_pool2d`, the first of equal maxima counts. The guide gets no gradient.
    """
    a, b, c, d = _windows(guide.detach())
    upper, right, lower_right = torch.maximum(a, b) >= torch.maximum(c, d), b > a, d > c
    # not max_unpool2d: it sums in any order on a GPU, and ONNX lacks it for sizes that vary
    chosen = (upper & ~right, upper & right, ~upper & ~lower_right, ~upper & lower_right)
    maps = [torch.where(each, features, torch.zeros_like(features)) for each in chosen]
    return cut(interleave(maps, ROW_BY_ROW), size or (guide.shape[2], guide.shape[3]))


def _windows(guide: Tensor) -> tuple[Tensor, ...]:
    """(N, C, h, w) -> the four pixels of its 2x2 windows, row by row, each (N, C, ceil(h / 2), ceil(w / 2))."""
    height, width = level_size((guide.shape[2], guide.shape[3]), 2)
    missing = (0, 2 * width - guide.shape[3], 0, 2 * height - guide.shape[2])
    whole = F.pad(guide, missing, value=-math.inf)
    return tuple(whole[:, :, row::2, column::2] for row, column in ROW_BY_ROW)


def max_pool_2x2(guide: Tensor) -> Tensor:
    """2x2 max pooling; windows may reach over the border."""
    if not torch.compiler.is_exporting():
        return F.max_pool2d(guide, 2, ceil_mode=True)
    # ceil_mode ties a graph to its example; slices would make the backward pass ten times as slow in training
    a, b, c, d = _windows(guide)
    return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))


def to_width(features: Tensor, channels: int) -> Tensor:
    """(N, Cbefore, H, W) -> (N, channels, H, W): means over equal shares of the channels."""
    before = features.shape[1]
    if before == channels:
        return features
    units = torch.eye(before, device=features.device, dtype=features.dtype)
    shares = F.adaptive_avg_pool1d(units.unsqueeze(0), channels)[0].T  # (channels, before)
    return F.conv2d(features, shares.reshape(channels, before, 1, 1))


def build_upsampler(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """The upsampler of a name. Raises: SearchSpaceError: unknown, even kernel. PluginError: a user's own one fails."""
    try:
        record = find_upsampler(name)
    except ValueError as reason:
        raise SearchSpaceError(str(reason), code="upsampler-invalid") from None
    check_upsampler(name)
    return record.build(in_channels, out_channels)


class Repeated(nn.Module):
    """Upsamplers one after the other: (N, Cin, H, W) -> (N, Cout, 2^n H, 2^n W), or to `size`, at most 2^n - 1 less.

    A stage in between makes the size ceil(size / 2) of the next one; its guide is a 2x2 max pool of the next one's.
    """

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, features: Tensor, size: Size | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class."""
        guide = guide if getattr(self.stages[0], "reads_guide", False) else None
        sizes, guides = [size], [guide]
        for _ in self.stages[1:]:
            size, guide = size and level_size(size, 2), None if guide is None else max_pool_2x2(guide)
            sizes.append(size)
            guides.append(guide)
        for stage, of_size, of_guide in zip(self.stages, reversed(sizes), reversed(guides), strict=True):
            features = stage(features, of_size, of_guide)
        return features


def upsample_by(name: str, factor: int, in_channels: int, out_channels: int) -> nn.Module:
    """An upsampler by 2, 4, 8, ...: a doubling one, repeated. The first stage changes the channels.

    Raises: SearchSpaceError: a factor that is no power of two, an unknown name, an even kernel.
    """
    if factor < 2 or factor & (factor - 1):
        message = f"features are upsampled by doubling, so the factor must be 2, 4, 8, ..., not {factor}"
        raise SearchSpaceError(message, code="upsampling-factor-invalid")
    widths = [in_channels, *(out_channels for _ in range(factor.bit_length() - 1))]
    stages = [build_upsampler(name, before, after) for before, after in pairwise(widths)]
    return stages[0] if len(stages) == 1 else Repeated(stages)
