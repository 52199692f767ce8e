"""The operations of a discrete cell. Each maps (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

`norm` makes a normalisation layer for a number of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.resize import level_size, resize

Norm = Callable[[int], nn.Module]
Pairs = tuple[tuple[str, str], ...]
"""Names of a module's convolutions and of the normalisation that reads each of them alone: `network.fold` merges them.
"""


class ReluConvNorm(nn.Module):
    """ReLU, 1x1 convolution, normalisation: brings a cell's input to its width. (N, Cin, H, W) -> (N, Cout, H, W)."""

    conv_norms: ClassVar[Pairs] = (("conv", "norm"),)

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = norm(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        normalised: Tensor = self.norm(self.conv(F.relu(features)))
        return normalised


class SepConv(nn.Module):
    """Depthwise-separable convolution: [ReLU, depthwise, 1x1, BN] twice, any stride in the first depthwise."""

    conv_norms: ClassVar[Pairs] = (("pointwise1", "norm1"), ("pointwise2", "norm2"))

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.depthwise1 = nn.Conv2d(
            channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False
        )
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = norm(channels)
        self.depthwise2 = nn.Conv2d(channels, channels, kernel_size, 1, kernel_size // 2, groups=channels, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        features = self.norm1(self.pointwise1(self.depthwise1(F.relu(features))))
        features = self.norm2(self.pointwise2(self.depthwise2(F.relu(features))))
        return features


class AtrousConv(nn.Module):
    """ReLU, dense convolution at rate 2, BN (Auto-DeepLab's code); with stride 2 a bilinear halving and rate 1."""

    conv_norms: ClassVar[Pairs] = (("conv", "norm"),)

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.stride = stride
        rate = 2 if stride == 1 else 1
        self.conv = nn.Conv2d(
            channels, channels, kernel_size, padding=rate * (kernel_size // 2), dilation=rate, bias=False
        )
        self.norm = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        features = self.norm(self.conv(_strided(F.relu(features), self.stride)))
        return features


class DilConv(nn.Module):
    """Dilated separable convolution of DARTS (Liu et al. 2019): ReLU, depthwise at rate 2, 1x1, BN; any stride."""

    conv_norms: ClassVar[Pairs] = (("pointwise", "norm"),)

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, stride, kernel_size - 1, dilation=2, groups=channels, bias=False
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        features = self.norm(self.pointwise(self.depthwise(F.relu(features))))
        return features


class AvgPool(nn.Module):
    """3x3 average pooling over the pixels inside the image."""

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return avg_pool(features, self.kernel_size, self.stride)


class MaxPool(nn.Module):
    """3x3 max pooling."""

    def __init__(self, channels: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return F.max_pool2d(features, self.kernel_size, self.stride, self.kernel_size // 2)


class SkipConnect(nn.Module):
    """The identity; with stride 2, bilinear halving, which needs no parameters (the paper leaves this open)."""

    def __init__(self, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return _strided(features, self.stride)


def avg_pool(features: Tensor, kernel_size: int, stride: int = 1) -> Tensor:
    """Average pooling that leaves padding out of the mean."""
    return F.avg_pool2d(features, kernel_size, stride, kernel_size // 2, count_include_pad=False)


def _strided(features: Tensor, stride: int) -> Tensor:
    return resize(features, level_size((features.shape[-2], features.shape[-1]), stride))
