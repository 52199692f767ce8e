"""ResNet-50 and -101 (He et al. 2016) without their classifier, under torchvision's names of weights.

As in torchvision ("v1.5"), a stage strides in the 3x3 convolution of its first block, not in the 1x1 before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.interleave import every_second
from autoseg.ops.layers import Pairs, dense, he_initialise, pointwise
from autoseg.zoo.layers import StageRate, scaled, stage_rates

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Depth -> bottlenecks of each stage."""
WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions of each stage."""
EXPANSION = 4
"""Channels of a stage's output for each of its 3x3 convolutions' channels."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with BatchNorm, and the shortcut: (N, Cin, H, W) -> (N, Cout, ceil(H / s), ceil(W / s)).

    `projected`: with a 1x1 convolution on the shortcut, as the first block of every stage has.
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, stride: int, rate: int, projected: bool
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = pointwise(in_channels, channels), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = dense(channels, 3, stride, rate), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = pointwise(channels, out_channels), nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.conv_norms: Pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
        self.downsample: nn.Sequential | None = None
        if projected:
            self.downsample = nn.Sequential(pointwise(in_channels, out_channels), nn.BatchNorm2d(out_channels))
            self.conv_norms += (("downsample.0", "downsample.1"),)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        shortcut = features
        if self.downsample is not None:
            shortcut = self.downsample(every_second(features) if self.stride == 2 else features)
        features = F.relu(self.bn1(self.conv1(features)), inplace=True)
        features = F.relu(self.bn2(self.conv2(features)), inplace=True)
        return F.relu(self.bn3(self.conv3(features)) + shortcut, inplace=True)


class ResNet(nn.Module):
    """The trunk: (N, Cin, H, W) -> the outputs of layer1 to layer4, each after its ReLU, from fine to coarse.

    `channels` 256, 512, 1024, 2048 and `strides` 4, 8, 16, 32 as published. A smaller `output_stride` dilates the later
    convolutions.

    `multi_grid` multiplies the rates of the three 3x3 convolutions of layer4 and of the stages behind it (DeepLabv3,
    section 3.2). The first one of a stage strides, so its rate is that of the stage before: (1, 2, 4) gives rates 1, 4,
    8 at output stride 16. The paper's ResNet strides at the end of the stage before, which gives 2, 4, 8. With the
    stride here, only rate 1 lets the pre-trained convolution see what it saw.

    `extra_blocks`: stages like layer4 behind it, layer5 and on (DeepLabv3's cascade has 3). Their outputs are returned
    too. Each has a stride of 2, so the cascade at output stride 16 has rates 2, 4, 8, 16.

    Raises: ConfigError: an output stride other than 4, 8, 16, 32 (64, ... with extra blocks).
    """

    conv_norms: ClassVar[Pairs] = (("conv1", "bn1"),)

    def __init__(
        self, depth: Literal[50, 101] = 50, in_channels: int = 3, width: float = 1.0, output_stride: int = 32,
        multi_grid: Sequence[int] = (1, 1, 1), extra_blocks: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        numbers = [*BLOCKS[depth], *[BLOCKS[depth][-1]] * extra_blocks]
        self.kind, self.width = f"ResNet-{depth}", width
        stages = stage_rates([4, *[2] * (len(numbers) - 1)], output_stride)
        self.strides = [stage.output_stride for stage in stages]
        layers = range(1, len(numbers) + 1)
        self.stages = ("backbone.conv1", *(f"backbone.layer{number}" for number in layers))
        self.channels: list[int] = []
        channels = scaled(64, width)
        self.conv1 = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, (blocks, stage) in enumerate(zip(numbers, stages, strict=True), start=1):
            middle = WIDTHS[min(number, len(WIDTHS)) - 1]
            grid = multi_grid if number >= len(WIDTHS) else [1] * blocks
            widths = (channels, scaled(middle, width), scaled(EXPANSION * middle, width))
            stride = stage.stride if number > 1 else 1  # the stem strides in place of layer1
            self.add_module(f"layer{number}", _build_layer(widths, stride, stage, grid))
            channels = widths[-1]
            self.channels.append(channels)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        features = F.max_pool2d(F.relu(self.bn1(self.conv1(images)), inplace=True), 3, 2, 1)
        found = []
        for number in range(1, len(self.channels) + 1):
            features = self.get_submodule(f"layer{number}")(features)
            found.append(features)
        return found


def _build_layer(widths: tuple[int, int, int], stride: int, stage: StageRate, grid: Sequence[int]) -> nn.Sequential:
    """A stage's bottlenecks. widths: channels of its input, of its 3x3 convolutions and of its output."""
    before, middle, after = widths
    first = Bottleneck(before, middle, after, stride, stage.strided_rate * grid[0], True)
    return nn.Sequential(first, *(Bottleneck(after, middle, after, 1, stage.rate * unit, False) for unit in grid[1:]))
