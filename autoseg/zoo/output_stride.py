"""Filter rarefaction (Long et al. 2015, FCN, section 3.2): the same weights give denser features by dilation.

A stride becomes 1, and every later kernel and pool is dilated by it: each reads the pixels that it read before, but at
every shift of the image. With valid convolutions this equals shift-and-stitch; zero padding makes a difference near the
border.

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


class StageRate(NamedTuple):
    """Strides and dilations of a stage, which begins with its strided convolution or pool."""

    stride: int
    """The published network's stride, or 1."""
    strided_rate: int
    """Dilation of the strided layer: that of the stage before."""
    rate: int
    """Dilation of the layers behind it."""
    output_stride: int
    """Input pixels per output pixel of the stage, along an axis."""


def stage_rates(strides: Sequence[int], output_stride: int) -> list[StageRate]:
    """The rates of each stage of a network with these strides, whose last output shall have `output_stride`.

    Raises: ConfigError: no stage of the network ends at this output stride.
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
