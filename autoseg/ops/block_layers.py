"""The torch modules of `autoseg.ops.blocks`.

Letters: Cin channels before a block, C after it, s its stride. Each maps (N, Cin, H, W) to (N, C, ceil(H / s),
ceil(W / s)).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.blocks import EXPANSION, shortcut, squeezed
from autoseg.ops.interleave import every_second
from autoseg.ops.layers import Chain, DropPath, Norm, depthwise, pointwise
from autoseg.ops.upsample import max_pool_2x2


class Pool(nn.Module):
    """2x2 max pooling; pixels beyond the border do not count."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        return max_pool_2x2(features)


class Residual(DropPath):
    """ReLU(shortcut + branch) (He et al. 2016). The shortcut is the identity where it can be, else 1x1 and BN."""

    def __init__(self, branch: nn.Module, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.branch, self.stride = branch, stride
        self.shortcut: nn.Module = nn.Identity()
        if shortcut(in_channels, channels, stride):
            self.shortcut = Chain(conv=pointwise(in_channels, channels), norm=norm(channels))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        kept = every_second(features) if self.stride == 2 else features
        return F.relu(self.shortcut(kept) + self.drop_path(self.branch(features)))


class InvertedResidual(DropPath):
    """1x1 to four times the channels, depthwise 3x3, linear 1x1 (MobileNetV2, Sandler et al. 2018).

    The input is added where the shapes are equal, and no ReLU follows.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        wide = EXPANSION * in_channels
        self.branch = Chain(
            conv1=pointwise(in_channels, wide), norm1=norm(wide), relu1=nn.ReLU(inplace=True),
            conv2=depthwise(wide, 3, stride), norm2=norm(wide), relu2=nn.ReLU(inplace=True),
            conv3=pointwise(wide, channels), norm3=norm(channels),
        )  # fmt: skip
        self.adds = stride == 1 and in_channels == channels

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        if not self.adds:
            return self.branch(features)
        return features + self.drop_path(self.branch(features))


def conv_block(in_channels: int, channels: int, stride: int, norm: Norm) -> Chain:
    """One 3x3 convolution, BN, ReLU; behind 2x2 max pooling at stride 2 (U-Net, Ronneberger et al. 2015)."""
    pool: dict[str, nn.Module] = {"pool": Pool()} if stride == 2 else {}
    return Chain(**pool, conv=_conv(in_channels, channels), norm=norm(channels), relu=nn.ReLU(inplace=True))


def residual(in_channels: int, channels: int, stride: int, norm: Norm, rate: int = 1) -> Residual:
    """Two 3x3 convolutions, of which the first strides and the second has the rate (ResNet-18, He et al. 2016)."""
    branch = Chain(
        conv1=_conv(in_channels, channels, stride), norm1=norm(channels), relu1=nn.ReLU(inplace=True),
        conv2=_conv(channels, channels, rate=rate), norm2=norm(channels),
    )  # fmt: skip
    return Residual(branch, in_channels, channels, stride, norm)


def separable_residual(in_channels: int, channels: int, stride: int, norm: Norm) -> Residual:
    """Two depthwise-separable 3x3 convolutions, of which the first strides (Xception, Chollet 2017)."""
    branch = Chain(
        depthwise1=depthwise(in_channels, 3, stride), pointwise1=pointwise(in_channels, channels),
        norm1=norm(channels), relu1=nn.ReLU(inplace=True),
        depthwise2=depthwise(channels, 3), pointwise2=pointwise(channels, channels), norm2=norm(channels),
    )  # fmt: skip
    return Residual(branch, in_channels, channels, stride, norm)


def bottleneck(in_channels: int, channels: int, stride: int, norm: Norm) -> Residual:
    """1x1 to a quarter of the channels, 3x3, which strides, and 1x1 (ResNet-50; ENet, Paszke et al. 2016)."""
    inside = squeezed(channels)
    branch = Chain(
        conv1=pointwise(in_channels, inside), norm1=norm(inside), relu1=nn.ReLU(inplace=True),
        conv2=_conv(inside, inside, stride), norm2=norm(inside), relu2=nn.ReLU(inplace=True),
        conv3=pointwise(inside, channels), norm3=norm(channels),
    )  # fmt: skip
    return Residual(branch, in_channels, channels, stride, norm)


def _conv(in_channels: int, channels: int, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, rate, rate, bias=False)
