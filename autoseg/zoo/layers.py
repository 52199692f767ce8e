"""What the networks of the zoo share: their width, their output stride, and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.ops.layers import Chain, Norm, Pairs, depthwise, he_initialise, pointwise
from autoseg.ops.upsample import max_pool_2x2

FULLY_CONNECTED = 4096
"""Channels of VGG16's fc6 and fc7."""
SCORE_STD = 0.01
"""Standard deviation of the weights of a classifier's last layer, as in FCN, DeepLab and DeconvNet."""


def scaled(channels: int, width: float) -> int:
    """`channels` of the published network at `width` (1 as published), rounded, at least one."""
    return max(1, round(channels * width))


# --- output strides ---------------------------------------------------------------------------------------------------
#
# Filter rarefaction (Long et al. 2015, FCN, section 3.2): the same weights give denser features by dilation. A stride
# becomes 1, and every later kernel and pool is dilated by it: each reads the pixels that it read before, but at every
# shift of the image. With valid convolutions this equals shift-and-stitch; zero padding makes a difference near the
# border.


class StageRate(NamedTuple):
    """Strides and dilations of a stage, which begins with its strided convolution or pool."""

    stride: int  # the published network's, or 1
    strided_rate: int  # dilation of the strided layer: that of the stage before
    rate: int  # dilation of the layers behind it
    output_stride: int  # input pixels per output pixel of the stage, along an axis


def stage_rates(strides: Sequence[int], output_stride: int) -> list[StageRate]:
    """The rates of stages with these strides at an `output_stride`. Raises: ConfigError: no stage ends there."""
    possible = [math.prod(strides[: number + 1]) for number in range(len(strides))]
    if output_stride not in possible:
        known = ", ".join(str(stride) for stride in dict.fromkeys(possible))
        message = f"output stride {output_stride} is not to be had here; it can be: {known}"
        raise ConfigError(message, code="output-stride-unavailable")
    stages: list[StageRate] = []
    total = rate = 1
    for stride in strides:
        if total * stride <= output_stride:
            total *= stride
            stages.append(StageRate(stride, rate, rate, total))
        else:
            stages.append(StageRate(1, rate, rate * stride, total))
            rate *= stride
    return stages


class MaxPool(nn.Module):
    """Max pooling of windows of 2 or 3 pixels that are `rate` apart: (N, C, H, W) -> (N, C, ceil(H / s), ceil(W / s)).

    A window of 3 lies around its pixel; a window of 2 begins at it. Pixels beyond the border do not count.
    """

    def __init__(self, kernel_size: Literal[2, 3], stride: int, rate: int = 1) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.rate = kernel_size, stride, rate

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        if self.kernel_size == 3 and self.rate == 1:
            return F.max_pool2d(features, 3, self.stride, 1)
        if self.kernel_size == self.stride == 2 and self.rate == 1:
            return max_pool_2x2(features)
        before = self.rate if self.kernel_size == 3 else 0
        # PyTorch's own padding is at most half of the kernel, whatever lies between its pixels
        around = F.pad(features, (before, self.rate, before, self.rate), value=-math.inf)
        return F.max_pool2d(around, self.kernel_size, self.stride, 0, self.rate)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, rate={self.rate}"


class SeparableConvNormRelu(nn.Sequential):
    """`ConvNormRelu` twice, depthwise and 1x1 (DeepLabv3+, section 3.2): the same arguments, and it keeps the size."""

    conv_norms: ClassVar[Pairs] = (("0", "1"), ("3", "4"))

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: Norm, rate: int = 1) -> None:
        super().__init__(
            depthwise(in_channels, kernel_size, rate=rate), norm(in_channels), nn.ReLU(inplace=True),
            pointwise(in_channels, out_channels), norm(out_channels), nn.ReLU(inplace=True),
        )  # fmt: skip


def fully_connected(
    in_channels: int, channels: int, kernel_size: int, dropout: float, rate: int = 1, norm: Norm = nn.Identity
) -> Chain:
    """VGG16's fully connected layers as convolutions (FCN): fc6 of any kernel, fc7 1x1, each with ReLU and dropout.

    (N, Cin, H, W) -> (N, C, H, W): zero padding keeps the size.
    """
    around = rate * (kernel_size - 1)
    # one more row and column of zeros, for an even kernel at an odd rate
    more = {"pad": nn.ZeroPad2d((0, 1, 0, 1))} if around % 2 else {}
    layers = Chain(
        **more,
        fc6=nn.Conv2d(in_channels, channels, kernel_size, padding=around // 2, dilation=rate),
        norm6=norm(channels), relu6=nn.ReLU(), dropout6=nn.Dropout(dropout),
        fc7=nn.Conv2d(channels, channels, 1),
        norm7=norm(channels), relu7=nn.ReLU(), dropout7=nn.Dropout(dropout),
    )  # fmt: skip
    he_initialise(layers)
    return layers


def initialise_score(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise a layer whose outputs are scores, and return it: small normal weights, zero bias."""
    nn.init.normal_(conv.weight, std=SCORE_STD)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
