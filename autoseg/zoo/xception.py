"""Modified aligned Xception-65 (Chen et al. 2018, DeepLabv3+, section 3.2 and fig. 4) without its classifier.

The weights have the names of timm's `xception65`, which were made from the published TensorFlow weights. The network
is that of the published code: BatchNorm has an epsilon of 1e-3, and a depthwise convolution's BatchNorm has a ReLU
behind it in the last block alone (the paper has one everywhere).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.interleave import every_second
from autoseg.ops.layers import Chain, depthwise, he_initialise, pointwise
from autoseg.zoo.layers import StageRate, scaled, stage_rates

Shortcut = Literal["conv", "sum", "none"]
STEM = (32, 64)
ENTRY = ((128, 128, 128), (256, 256, 256), (728, 728, 728))
MIDDLE, MIDDLE_BLOCKS = (728, 728, 728), 16
EXIT = ((728, 1024, 1024), (1536, 1536, 2048))
"""Channels of the separable convolutions of each block; the last one strides in the entry and first exit blocks."""
LOW_LEVEL_BLOCK = 1
"""The second entry block: DeepLabv3+'s decoder reads its second separable convolution."""
batch_norm = partial(nn.BatchNorm2d, eps=1e-3)


def separable_conv(in_channels: int, out_channels: int, stride: int, rate: int, inner_relu: bool) -> Chain:
    """Depthwise 3x3 and 1x1, each with BatchNorm; `inner_relu` between. (N, Cin, H, W) -> (N, Cout, H', W')."""
    between = {"relu": nn.ReLU(inplace=True)} if inner_relu else {}
    return Chain(
        conv_dw=depthwise(in_channels, 3, stride, rate), bn_dw=batch_norm(in_channels), **between,
        conv_pw=pointwise(in_channels, out_channels), bn_pw=batch_norm(out_channels),
    )  # fmt: skip


class XceptionBlock(nn.Module):
    """Three separable convolutions, the last one strided: (N, Cin, H, W) -> (N, Cout, ceil(H / s), ceil(W / s)).

    `shortcut`: "conv", a 1x1 convolution; "sum", the input itself; or "none". A ReLU stands before each separable
    convolution, or behind each if there is no shortcut.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], stride: int, rate: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.adds = shortcut != "none"
        self.stack = nn.ModuleDict()
        self.stride, self.shortcut = stride, None
        if shortcut == "conv":
            self.shortcut = Chain(conv=pointwise(in_channels, widths[-1]), bn=batch_norm(widths[-1]))
        for place, out_channels in enumerate(widths, start=1):
            step = stride if place == len(widths) else 1
            self.stack[f"conv{place}"] = separable_conv(in_channels, out_channels, step, rate, not self.adds)
            in_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.outputs(features)[1]

    def outputs(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the second separable convolution, with a shortcut before the ReLU that follows; the block's."""
        before = result = features
        for conv in self.stack.values():
            before = result
            result = conv(F.relu(before)) if self.adds else F.relu(conv(before), inplace=True)
        if self.shortcut is not None:
            features = self.shortcut(every_second(features) if self.stride == 2 else features)
        return before, result + features if self.adds else result


class Xception65(nn.Module):
    """The trunk: (N, Cin, H, W) -> [low-level feature, end], of `channels` 256, 2048 and `strides` 4, `output_stride`.

    The published decoder reads this low-level feature before its ReLU: the second separable convolution of the second
    entry block (entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise). The end is after its ReLU. A
    smaller `output_stride` dilates the later convolutions.

    Raises: ConfigError: an output stride other than 2, 4, 8, 16 and 32.
    """

    def __init__(self, in_channels: int = 3, width: float = 1.0, output_stride: int = 16) -> None:
        super().__init__()
        self.kind, self.width = "Xception-65", width
        stages = stage_rates([2] * (2 + len(ENTRY)), output_stride)
        first, channels = (scaled(number, width) for number in STEM)
        self.stem = nn.ModuleList(
            Chain(conv=nn.Conv2d(before, after, 3, stride, 1, bias=False), bn=batch_norm(after))
            for before, after, stride in ((in_channels, first, 2), (first, channels, 1))
        )
        self.blocks = nn.ModuleList()
        for block, stride, rate, shortcut in _plan_blocks(stages):
            widths = [scaled(number, width) for number in block]
            self.blocks.append(XceptionBlock(channels, widths, stride, rate, shortcut))
            channels = widths[-1]
        self.channels = [scaled(ENTRY[LOW_LEVEL_BLOCK][1], width), channels]
        self.strides = [stages[LOW_LEVEL_BLOCK].output_stride, output_stride]
        *middle, exit_flow, end = range(len(ENTRY), len(self.blocks))
        shown = ("0", f"{LOW_LEVEL_BLOCK}.stack.conv2", "2", *middle[3::4], exit_flow, end)  # every fourth middle block
        self.stages = ("backbone.stem.1", *(f"backbone.blocks.{block}" for block in shown))
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        features = images
        for layer in self.stem:
            features = F.relu(layer(features), inplace=True)
        before, low_level_block, *after = cast("list[XceptionBlock]", list(self.blocks))
        low_level, features = low_level_block.outputs(before(features))
        for block in after:
            features = block(features)
        return [low_level, features]


def _plan_blocks(stages: Sequence[StageRate]) -> Iterator[tuple[Sequence[int], int, int, Shortcut]]:
    """(channels, stride, rate, shortcut) of each block. `stages`: the stem, the entry blocks, the exit flow."""
    _, *entry, end = stages
    for widths, stage in zip(ENTRY, entry, strict=True):
        yield widths, stage.stride, stage.strided_rate, "conv"
    for _ in range(MIDDLE_BLOCKS):
        yield MIDDLE, 1, end.strided_rate, "sum"
    yield EXIT[0], end.stride, end.strided_rate, "conv"
    yield EXIT[1], 1, end.rate, "none"
