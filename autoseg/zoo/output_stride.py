"""Filter rarefaction (Long et al. 2015, FCN, section 3.2): denser features of the same weights, by dilation.

A stride becomes 1, and every later kernel and pool is dilated by it: each then reads the pixels that it read before, at
every shift of the image instead of one in each `stride` x `stride`. With valid convolutions this is shift-and-stitch
exactly; zero padding, which is not there in a shifted image, makes a difference near the border.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.ops.upsample import max_pool_2x2

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.Identity)
"""Layers that read a pixel at a time, whatever lies between the pixels."""


class StageRate(NamedTuple):
    """What a stage of a network has under an output stride. The stage begins with its strided convolution or pool."""

    stride: int
    """That of the published network, or 1."""
    strided_rate: int
    """Dilation of what carries the stride: that of the stage before."""
    rate: int
    """Dilation of what follows."""
    output_stride: int
    """Input pixels a cell of the stage's output."""


def stage_rates(strides: Sequence[int], output_stride: int) -> list[StageRate]:
    """One for each stage of a network with these strides, so that its last output has `output_stride`.

    Raises: ConfigError: an output stride at which no stage of the network ends.
    """
    possible = [math.prod(strides[: number + 1]) for number in range(len(strides))]
    if output_stride not in possible:
        known = ", ".join(str(stride) for stride in dict.fromkeys(possible))
        raise ConfigError(
            f"output stride {output_stride} is not to be had here; it can be: {known}", code="output-stride-unavailable"
        )
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

    A window of 3 lies around its pixel, one of 2 begins at it; what lies beyond the border does not count.
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


def rarefy(network: nn.Sequential, output_stride: int) -> nn.Sequential:
    """A plain stack of convolutions, pools and pointwise layers with a smaller output stride and the same weights.

    (N, C, H, W) -> features that hold those of `network` at every shift by less than the removed strides. Layers are
    those of `network` where nothing changes in them, else new ones around the same parameters.

    Raises: ConfigError: an output stride that is not the product of the first strides, or a layer of which it is not
    known how to dilate it.
    """
    strides = [_stride_of(number, layer) for number, layer in enumerate(network)]
    stages = stage_rates(strides, output_stride)
    layers = (_rarefied(layer, stage).train(layer.training) for layer, stage in zip(network, stages, strict=True))
    rarefied = nn.Sequential(*layers)
    rarefied.training = network.training  # not that of the layers, some of which are the network's own
    return rarefied


def _stride_of(number: int, layer: nn.Module) -> int:
    if isinstance(layer, POINTWISE):
        return 1
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | MaxPool):
        raise ConfigError(
            f"layer {number}, {type(layer).__name__}, cannot be dilated; a plain stack has Conv2d, MaxPool2d and"
            " pointwise layers alone",
            code="layer-not-dilatable",
        )
    strides = {layer.stride} if isinstance(layer.stride, int) else set(layer.stride)
    if len(strides) > 1 or (isinstance(layer, nn.MaxPool2d) and layer.ceil_mode):
        raise ConfigError(
            f"layer {number}, {layer}, cannot be dilated: it has two strides, or windows of ceil_mode",
            code="layer-not-dilatable",
        )
    return strides.pop()


def _rarefied(layer: nn.Module, stage: StageRate) -> nn.Module:
    """The layer with the stage's stride, dilated by `strided_rate`."""
    rate = stage.strided_rate
    if isinstance(layer, POINTWISE) or (rate, stage.rate) == (1, 1):
        return layer
    if isinstance(layer, MaxPool):
        return MaxPool(layer.kernel_size, stage.stride, rate * layer.rate)
    if isinstance(layer, nn.MaxPool2d):
        pool = nn.MaxPool2d(layer.kernel_size, stage.stride, dilation=_times(layer.dilation, rate))
        rows, columns = _times(layer.padding, rate)
        if rows == columns == 0:
            return pool
        return nn.Sequential(nn.ConstantPad2d((columns, columns, rows, rows), -math.inf), pool)
    assert isinstance(layer, nn.Conv2d)
    padding = layer.padding if isinstance(layer.padding, str) else _times(layer.padding, rate)
    height, width = layer.kernel_size
    conv = nn.Conv2d(
        layer.in_channels, layer.out_channels, (height, width), stage.stride, padding,
        _times(layer.dilation, rate), layer.groups, layer.bias is not None, layer.padding_mode, device="meta",
    )  # fmt: skip
    conv.weight, conv.bias = layer.weight, layer.bias
    return conv


def _times(lengths: int | tuple[int, ...], rate: int) -> tuple[int, int]:
    height, width = (lengths, lengths) if isinstance(lengths, int) else lengths
    return height * rate, width * rate
