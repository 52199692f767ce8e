"""Layers that several networks of the zoo share.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.layers import Norm, Pairs, depthwise, pointwise
from autoseg.zoo.initialisation import he_initialise
from autoseg.zoo.output_stride import MaxPool
from autoseg.zoo.vgg import VGG16

FULLY_CONNECTED = 4096
"""Channels of VGG16's fc6 and fc7."""
SCORE_STD = 0.01
"""Standard deviation of the weights of a classifier's last layer, as in FCN, DeepLab and DeconvNet."""


class ConvRelu(nn.Sequential):
    """Convolution, normalisation if there is one, ReLU; keeps the size."""

    conv_norms: ClassVar[Pairs] = (("0", "1"),)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, norm: Norm | None, bias: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
            nn.Identity() if norm is None else norm(out_channels),
            nn.ReLU(inplace=True),
        )


class SeparableConvNormRelu(nn.Sequential):
    """Depthwise and 1x1 convolution, each with normalisation and ReLU (DeepLabv3+, section 3.2); keeps the size.

    It takes the arguments of `ConvNormRelu`.
    """

    conv_norms: ClassVar[Pairs] = (("0", "1"), ("3", "4"))

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: Norm, rate: int = 1) -> None:
        super().__init__(
            depthwise(in_channels, kernel_size, rate=rate), norm(in_channels), nn.ReLU(inplace=True),
            pointwise(in_channels, out_channels), norm(out_channels), nn.ReLU(inplace=True),
        )  # fmt: skip


class FullyConnected(nn.Module):
    """VGG16's fully connected layers as convolutions (FCN): fc6 of any kernel, fc7 1x1, each with ReLU and dropout.

    (N, Cin, H, W) -> (N, C, H, W): zero padding keeps the size.
    """

    conv_norms: ClassVar[Pairs] = (("fc6", "norm6"), ("fc7", "norm7"))

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, dropout: float, rate: int = 1, norm: Norm | None = None
    ) -> None:
        super().__init__()
        around = rate * (kernel_size - 1)
        self.fc6 = nn.Conv2d(in_channels, channels, kernel_size, padding=around // 2, dilation=rate)
        self.extra = around % 2  # one more row and column of zeros, for an even kernel at an odd rate
        self.norm6 = nn.Identity() if norm is None else norm(channels)
        self.fc7 = nn.Conv2d(channels, channels, 1)
        self.norm7 = nn.Identity() if norm is None else norm(channels)
        self.dropout = nn.Dropout(dropout)
        he_initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        if self.extra:
            features = F.pad(features, (0, self.extra, 0, self.extra))
        features = self.dropout(F.relu(self.norm6(self.fc6(features))))
        features = self.dropout(F.relu(self.norm7(self.fc7(features))))
        return features


def initialise_score(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise a layer whose outputs are scores, and return it: small normal weights, zero bias."""
    nn.init.normal_(conv.weight, std=SCORE_STD)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def vgg_stages(backbone: VGG16) -> tuple[str, ...]:
    """Names of the layer before each pooling: the ends of VGG16's stages."""
    places = [place for place, layer in enumerate(backbone.features) if isinstance(layer, MaxPool)]
    return tuple(f"backbone.features.{place - 1}" for place in places)
