"""Modified aligned Xception-65 (Chen et al. 2018, DeepLabv3+, section 3.2 and fig. 4) without its classifier.

The names of weights are those of timm's `xception65`, which were made from the published TensorFlow weights.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.interleave import every_second
from autoseg.ops.layers import Norm, Pairs
from autoseg.zoo.initialisation import he_initialise
from autoseg.zoo.output_stride import StageRate, stage_rates
from autoseg.zoo.width import scaled

Variant = Literal["code", "paper"]
Shortcut = Literal["conv", "sum", "none"]
STEM = (32, 64)
ENTRY = ((128, 128, 128), (256, 256, 256), (728, 728, 728))
MIDDLE, MIDDLE_BLOCKS = (728, 728, 728), 16
EXIT = ((728, 1024, 1024), (1536, 1536, 2048))
"""Channels of the three separable convolutions of each block; the last one of entry and first exit blocks strides."""
LOW_LEVEL_BLOCK = 1
"""The second block of the entry flow, of which DeepLabv3+'s decoder reads the second separable convolution."""
CODE_BN_EPS = 1e-3


class ConvNorm(nn.Module):
    """Convolution and BatchNorm; a 1x1 with stride 2 picks the pixels first. (N, Cin, H, W) -> (N, Cout, H', W')."""

    conv_norms: ClassVar[Pairs] = (("conv", "bn"),)

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.picks = kernel_size == 1 and stride == 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, 1 if self.picks else stride, kernel_size // 2, bias=False
        )
        self.bn = norm(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        normalised: Tensor = self.bn(self.conv(every_second(features) if self.picks else features))
        return normalised


class SeparableConv(nn.Module):
    """Depthwise 3x3 and 1x1, each with BatchNorm; `inner_relu` between. (N, Cin, H, W) -> (N, Cout, H', W')."""

    conv_norms: ClassVar[Pairs] = (("conv_dw", "bn_dw"), ("conv_pw", "bn_pw"))

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, rate: int, norm: Norm, inner_relu: bool
    ) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, rate, rate, groups=in_channels, bias=False)
        self.bn_dw = norm(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn_pw = norm(out_channels)
        self.inner_relu = inner_relu

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        features = self.bn_dw(self.conv_dw(features))
        if self.inner_relu:
            features = F.relu(features, inplace=True)
        features = self.bn_pw(self.conv_pw(features))
        return features


class XceptionBlock(nn.Module):
    """Three separable convolutions, the last one strided: (N, Cin, H, W) -> (N, Cout, ceil(H / s), ceil(W / s)).

    A ReLU stands before each, or after each where there is no shortcut. `shortcut`: "conv", a 1x1 convolution, "sum",
    the block's input itself, or "none".
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stride: int,
        rates: Sequence[int],
        shortcut: Shortcut,
        variant: Variant,
    ) -> None:
        super().__init__()
        norm = _norm(variant)
        self.adds = shortcut != "none"
        self.stack = nn.ModuleDict()
        self.shortcut = ConvNorm(in_channels, widths[-1], 1, stride, norm) if shortcut == "conv" else None
        for place, (out_channels, rate) in enumerate(zip(widths, rates, strict=True), start=1):
            self.stack[f"conv{place}"] = SeparableConv(
                in_channels,
                out_channels,
                stride if place == len(widths) else 1,
                rate,
                norm,
                inner_relu=variant == "paper" or shortcut == "none",
            )
            in_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.finish(features, self.begin(features))

    def begin(self, features: Tensor) -> Tensor:
        """The output of the second separable convolution; where there is a shortcut, before the ReLU that follows."""
        return self._separate("conv2", self._separate("conv1", features))

    def finish(self, features: Tensor, begun: Tensor) -> Tensor:
        """The block's output from its input and what `begin` made of it."""
        result = self._separate("conv3", begun)
        if self.shortcut is not None:
            features = self.shortcut(features)
        return result + features if self.adds else result

    def _separate(self, name: str, features: Tensor) -> Tensor:
        if self.adds:
            separated: Tensor = self.stack[name](F.relu(features))
        else:
            separated = F.relu(self.stack[name](features), inplace=True)
        return separated


class Xception65(nn.Module):
    """The trunk: (N, Cin, H, W) -> [low-level feature, end], of `channels` 256, 2048 and `strides` 4, `output_stride`.

    The low-level feature is what the published decoder reads: the second separable convolution of the entry flow's
    second block (entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise), before the ReLU. The end is after
    its ReLU. Under a smaller `output_stride` later convolutions are dilated; `multi_grid` multiplies the rates of the
    last block's three.

    `variant`: "code" is the published code, whose weights are to be had: BatchNorm has an epsilon of 1e-3, and a ReLU
    follows a depthwise convolution's BatchNorm in the last block alone. "paper" has one after each, as section
    3.2 says, and PyTorch's epsilon. Both have the same weights.

    Raises: ConfigError: an output stride other than 2, 4, 8, 16 and 32.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width: float = 1.0,
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 1, 1),
        variant: Variant = "code",
    ) -> None:
        super().__init__()
        self.width = width
        stages = stage_rates([2] * (2 + len(ENTRY)), output_stride)
        first, channels = (scaled(number, width) for number in STEM)
        norm = _norm(variant)
        self.stem = nn.ModuleList([ConvNorm(in_channels, first, 3, 2, norm), ConvNorm(first, channels, 3, 1, norm)])
        self.blocks = nn.ModuleList()
        for block, stride, rates, shortcut in _plan_blocks(stages, multi_grid):
            widths = [scaled(number, width) for number in block]
            self.blocks.append(XceptionBlock(channels, widths, stride, rates, shortcut, variant))
            channels = widths[-1]
        self.channels = [scaled(ENTRY[LOW_LEVEL_BLOCK][1], width), channels]
        self.strides = [stages[LOW_LEVEL_BLOCK].output_stride, output_stride]
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        features = images
        for layer in self.stem:
            features = F.relu(layer(features), inplace=True)
        before, low_level_block, *after = cast("list[XceptionBlock]", list(self.blocks))
        features = before(features)
        low_level = low_level_block.begin(features)
        features = low_level_block.finish(features, low_level)
        for block in after:
            features = block(features)
        return [low_level, features]


def _plan_blocks(
    stages: Sequence[StageRate], multi_grid: Sequence[int]
) -> Iterator[tuple[Sequence[int], int, list[int], Shortcut]]:
    """(channels, stride, rates, shortcut) of each block. `stages`: of the stem, the entry blocks, the exit flow."""
    _, *entry, end = stages
    for widths, stage in zip(ENTRY, entry, strict=True):
        yield widths, stage.stride, [stage.strided_rate] * len(widths), "conv"
    for _ in range(MIDDLE_BLOCKS):
        yield MIDDLE, 1, [end.strided_rate] * len(MIDDLE), "sum"
    yield EXIT[0], end.stride, [end.strided_rate] * len(EXIT[0]), "conv"
    yield EXIT[1], 1, [end.rate * unit for unit in multi_grid], "none"


def _norm(variant: Variant) -> Norm:
    return partial(nn.BatchNorm2d, eps=CODE_BN_EPS) if variant == "code" else nn.BatchNorm2d
