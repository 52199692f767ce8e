"""An operation of one's own: an inverted bottleneck (MobileNetV2, Sandler et al. 2018) with a learnable scale."""

from collections.abc import Callable

from torch import Tensor, nn, ones

import autoseg

EXPANSION = 3


class InvertedBottleneck(nn.Module):
    """ReLU, 1x1 to three times the channels, depthwise 3x3, 1x1 back; the result times a learned number a channel.

    (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        wide = EXPANSION * channels
        self.layers = nn.Sequential(
            nn.ReLU(),  # not in place: other operations read the same input
            nn.Conv2d(channels, wide, 1, bias=False),
            norm(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False),
            norm(wide),
            nn.ReLU(),
            nn.Conv2d(wide, channels, 1, bias=False),
            norm(channels),
        )
        self.scale = nn.Parameter(ones(channels, 1, 1))

    def forward(self, state: Tensor) -> Tensor:
        """See the class."""
        return self.scale * self.layers(state)


def multiply_adds(channels: int) -> int:
    """Products for one output pixel at stride 1: two 1x1 convolutions and a depthwise 3x3."""
    wide = EXPANSION * channels
    return channels * wide + 9 * wide + wide * channels


autoseg.register(
    autoseg.Operation("inverted_3x3", label="inverted 3x3", multiply_adds=multiply_adds, build=InvertedBottleneck)
)
