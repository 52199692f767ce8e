"""Upsamplers that predict from the features how to resample them: CARAFE and DySample, by a factor of two.

Both resample every channel in the same way (or every group of channels) and mix none; a 1x1 convolution before them, at
low resolution, gives the width. Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.interleave import ROW_BY_ROW, cut, interleave, is_channels_last
from autoseg.ops.precision import without_autocast


class Carafe(nn.Module):
    """Content-aware reassembly (Wang et al. 2019): every pixel is a weighted mean of the 5x5 around it, with weights
    that are predicted for it. (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    The paper's defaults: 64 compressed channels, encoder 3x3, reassembly 5x5, one group. Outside the image are zeros.
    What a pixel may see is copied side by side, so that reassembly is a product of matrices a pixel, at the price of 25
    maps of low resolution that are kept for the backward pass; the result is in channels_last memory.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        compressed_channels: int = 64,
        encoder_kernel: int = 3,
        kernel_size: int = 5,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.compress = nn.Conv2d(out_channels, compressed_channels, 1)
        self.encode = nn.Conv2d(compressed_channels, 4 * kernel_size**2, encoder_kernel, padding=encoder_kernel // 2)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=0.001)
        for conv in (self.compress, self.encode):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, size: Sequence[int] | None = None, guide: Tensor | None = None) -> Tensor:
        """See the class; `size` is (2H, 2W) or one less in either."""
        features = self.project(features)
        taps, (height, width) = self.kernel_size**2, features.shape[2:]
        weights = self.encode(self.compress(features)).unflatten(1, (taps, 4)).softmax(1).to(features.dtype)
        padded = F.pad(features, (self.kernel_size // 2,) * 4).permute(0, 2, 3, 1)
        starts = [divmod(tap, self.kernel_size) for tap in range(taps)]
        seen = torch.stack([padded[:, row : row + height, col : col + width] for row, col in starts], 3)
        pixels = torch.matmul(weights.permute(0, 3, 4, 2, 1), seen)  # (N, H, W, 4, Cout)
        phases = pixels.permute(3, 0, 4, 1, 2).unbind()
        return cut(interleave(phases, ROW_BY_ROW), size)


class DySample(nn.Module):
    """Learning to upsample by learning to sample (Liu et al. 2023): bilinear sampling at places that are predicted.
    (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    The paper's 'lp' form without dynamic scope: offsets of a group of channels by a 1x1 convolution, times 0.25, added
    to the places of bilinear interpolation. Where `groups` does not divide the channels, their greatest common divisor
    is taken. Places are computed in float32 at least, for bf16 could not tell neighbouring pixels apart.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 4, scope: float = 0.25) -> None:
        super().__init__()
        self.groups, self.scope = math.gcd(out_channels, groups), scope
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
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
        moved = torch.unflatten(F.pixel_shuffle(self.scope * offsets, 2), 1, (2, self.groups))
        # a pixel's centre, in pixels of the low resolution
        columns = (torch.arange(2 * width, device=offsets.device) + 0.5).to(offsets.dtype) / 2
        rows = (torch.arange(2 * height, device=offsets.device) + 0.5).to(offsets.dtype) / 2
        x = (moved[:, 0] + columns) * (2 / width) - 1
        y = (moved[:, 1] + rows.unsqueeze(1)) * (2 / height) - 1
        return torch.stack((x, y), -1).flatten(0, 1)
