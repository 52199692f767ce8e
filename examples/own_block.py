"""A block of one's own: ConvNeXt's (Liu et al. 2022), with BatchNorm."""

from collections.abc import Callable

from torch import Tensor, nn

import autoseg

EXPANSION = 4


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, 1x1 to four times the channels, GELU, 1x1; the input is added where the shapes are equal.

    (N, Cin, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 7, stride, padding=3, groups=in_channels, bias=False),
            norm(in_channels),
            nn.Conv2d(in_channels, wide, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(wide, channels, 1, bias=False),
            norm(channels),
        )
        self.adds = stride == 1 and in_channels == channels

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return features + self.branch(features) if self.adds else self.branch(features)


def multiply_adds(in_channels: int, channels: int, stride: int) -> int:
    """Products for one output pixel: a depthwise 7x7 and two 1x1 convolutions, none before the stride."""
    wide = EXPANSION * channels
    return 49 * in_channels + in_channels * wide + wide * channels


autoseg.register(autoseg.Block("convnext", label="ConvNeXt", multiply_adds=multiply_adds, build=ConvNeXtBlock))
