"""Upsamplers that predict from the features how to resample them: CARAFE and DySample, by a factor of two.

Both resample all channels, or all channels of a group, in the same way, and mix none. A 1x1 convolution before them, at
low resolution, gives the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.devices import without_autocast
from autoseg.ops.interleave import ROW_BY_ROW, cut, interleave, is_channels_last
from autoseg.ops.layers import pointwise

KERNEL_SIZE = 5
"""Side of CARAFE's reassembly, in pixels of low resolution."""
GROUPS, SCOPE = 4, 0.25
"""DySample's groups of channels, and the factor of its offsets."""


class Carafe(nn.Module):
    """Content-aware reassembly (Wang et al. 2019): (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    Every pixel is a mean of the 5x5 around it, by predicted weights. The paper's defaults: 64 compressed channels,
    encoder 3x3, reassembly 5x5, one group. Zeros lie outside the image. The 5x5 of each pixel are copied side by side,
    so that reassembly is a product of matrices; the backward pass keeps these 25 maps of low resolution. The result is
    in channels_last memory.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = pointwise(in_channels, out_channels)
        self.compress = nn.Conv2d(out_channels, 64, 1)
        self.encode = nn.Conv2d(64, 4 * KERNEL_SIZE**2, 3, padding=1)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=0.001)
        for conv in (self.compress, self.encode):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, size: Sequence[int] | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class; `size` is (2H, 2W) or one less in either."""
        features = self.project(features)
        taps, (height, width) = KERNEL_SIZE**2, features.shape[2:]
        weights = self.encode(self.compress(features)).unflatten(1, (taps, 4)).softmax(1).to(features.dtype)
        padded = F.pad(features, (KERNEL_SIZE // 2,) * 4).permute(0, 2, 3, 1)
        starts = [divmod(tap, KERNEL_SIZE) for tap in range(taps)]
        seen = torch.stack([padded[:, row : row + height, col : col + width] for row, col in starts], 3)
        pixels = torch.matmul(weights.permute(0, 3, 4, 2, 1), seen)  # (N, H, W, 4, Cout)
        phases = pixels.permute(3, 0, 4, 1, 2).unbind()
        return cut(interleave(phases, ROW_BY_ROW), size)


class DySample(nn.Module):
    """Bilinear sampling at predicted places (Liu et al. 2023): (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    The paper's 'lp' form without dynamic scope: a 1x1 convolution, times 0.25, gives offsets for each group of channels
    from the places of bilinear interpolation. The number of groups is gcd(Cout, 4). Places are computed in float32 at
    least: bf16 cannot tell neighbouring pixels apart.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.groups = math.gcd(out_channels, GROUPS)
        self.project = pointwise(in_channels, out_channels)
        self.offset = nn.Conv2d(out_channels, 2 * self.groups * 4, 1)
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, size: Sequence[int] | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class; `size` is (2H, 2W) or one less in either."""
        features = self.project(features)
        offsets = self.offset(features)
        with without_autocast(features):
            dtype = torch.promote_types(features.dtype, torch.float32)
            grid = self._places(offsets.to(dtype))
            channels, groups = features.shape[1], self.groups
            grouped = torch.unflatten(features.to(dtype), 1, (groups, channels // groups)).flatten(0, 1)
            sampled = F.grid_sample(grouped, grid, "bilinear", "border", align_corners=False)
            result = torch.unflatten(sampled, 0, (-1, groups)).flatten(1, 2).to(features.dtype)
        if is_channels_last(features):
            result = result.contiguous(memory_format=torch.channels_last)
        return cut(result, size)

    def _places(self, offsets: Tensor) -> Tensor:
        """(N, 2 * groups * 4, H, W) -> (N * groups, 2H, 2W, 2): x and y from -1 to 1, as `grid_sample` takes them."""
        height, width = offsets.shape[2:]
        moved = torch.unflatten(F.pixel_shuffle(SCOPE * offsets, 2), 1, (2, self.groups))
        # a pixel's centre, in pixels of the low resolution
        columns = (torch.arange(2 * width, device=offsets.device) + 0.5).to(offsets.dtype) / 2
        rows = (torch.arange(2 * height, device=offsets.device) + 0.5).to(offsets.dtype) / 2
        x = (moved[:, 0] + columns) * (2 / width) - 1
        y = (moved[:, 1] + rows.unsqueeze(1)) * (2 / height) - 1
        return torch.stack((x, y), -1).flatten(0, 1)
