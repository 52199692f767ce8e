"""An upsampler of one's own: nearest neighbours, then a 3x3 convolution (resize convolution, Odena et al. 2016)."""

from torch import Tensor, nn
from torch.nn import functional as F

import autoseg


class ResizeConv(nn.Module):
    """(N, Cin, h, w) -> (N, Cout, 2h, 2w), or to `size`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor, size: tuple[int, int] | None = None, guide: Tensor | None = None) -> Tensor:
        """`guide`, a feature of the result's size, is not needed here."""
        size = size or (2 * features.shape[2], 2 * features.shape[3])
        return self.conv(F.interpolate(features, size, mode="nearest"))


def multiply_adds(channels: int, guide_channels: int) -> int:
    """Products for one pixel of low resolution: nine taps at each of the four pixels that it becomes."""
    return 4 * 9 * channels**2


autoseg.register(autoseg.Upsampler("resize_conv", label="resize conv", multiply_adds=multiply_adds, build=ResizeConv))
