"""Stem and heads, shared by the supernet and the discrete networks.

Letters: N images, C channels, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.primitives import Norm, Pairs
from autoseg.ops.resize import resize


class ConvNormRelu(nn.Sequential):
    """Convolution without bias, normalisation, ReLU; keeps the size."""

    conv_norms: ClassVar[Pairs] = (("0", "1"),)

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, norm: Norm, rate: int = 1) -> None:
        padding = rate * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=rate, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )


class Stem(nn.Module):
    """3x3 convolutions, each with BN, ReLU between them: (N, 3, H, W) -> H(-1) and H(0).

    These are the features of the last two convolutions, taken before their ReLU, since every cell begins with one
    (Auto-DeepLab's code, nas_network.py).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], norm: Norm, in_channels: int = 3) -> None:
        super().__init__()
        inputs = (in_channels, *channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, 1, bias=False)
            for before, after, stride in zip(inputs, channels, strides, strict=False)
        )
        self.norms = nn.ModuleList(norm(after) for after in channels)
        self.out_channels = (channels[-2:][0], channels[-1])
        """Of H(-1) and H(0)."""
        self.conv_norms: Pairs = tuple((f"convs.{number}", f"norms.{number}") for number in range(len(channels)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """H(-1) and H(0); the same feature twice where the stem has a single convolution."""
        before = features = self.norms[0](self.convs[0](images))
        for conv, norm in zip(self.convs[1:], self.norms[1:], strict=True):
            before, features = features, norm(conv(F.relu(features)))
        return before, features


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling without its projection: 1x1, a dense 3x3 a rate, image pooling, concatenated.

    (N, Cin, H, W) -> (N, (2 + rates) * filters, H, W); DeepLabv3 (Chen et al. 2017), section 3.3.
    """

    def __init__(self, in_channels: int, filters: int, rates: Sequence[int], norm: Norm) -> None:
        super().__init__()
        self.pointwise = ConvNormRelu(in_channels, filters, 1, norm)
        self.atrous = nn.ModuleList(ConvNormRelu(in_channels, filters, 3, norm, rate) for rate in rates)
        self.pooled = ConvNormRelu(in_channels, filters, 1, norm)
        self.out_channels = (2 + len(rates)) * filters

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        pooled = self.pooled(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        if features.is_contiguous(memory_format=torch.channels_last):
            pooled = pooled.contiguous(memory_format=torch.channels_last)  # an expanded one would turn all into NCHW
        return torch.cat([self.pointwise(features), *(conv(features) for conv in self.atrous), pooled], 1)


class AsppHead(nn.Module):
    """ASPP projected to `filters` channels: the encoder's end. (N, Cin, H, W) -> (N, filters, H, W)."""

    def __init__(self, in_channels: int, filters: int, rates: Sequence[int], norm: Norm, dropout: float) -> None:
        super().__init__()
        self.aspp = Aspp(in_channels, filters, rates, norm)
        self.project = ConvNormRelu(self.aspp.out_channels, filters, 1, norm)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        projected: Tensor = self.dropout(self.project(self.aspp(features)))
        return projected


class AsppDecoder(nn.Module):
    """ASPP and a classifier: (N, Cin, H, W) -> logits (N, K, H, W)."""

    def __init__(
        self, in_channels: int, num_classes: int, filters: int, rates: Sequence[int], dropout: float, norm: Norm
    ) -> None:
        super().__init__()
        self.head = AsppHead(in_channels, filters, rates, norm, dropout)
        self.classifier = nn.Conv2d(filters, num_classes, 1)

    def forward(self, features: Tensor, low_level: Tensor) -> Tensor:
        """Logits at the features' size; `low_level` is not used."""
        logits: Tensor = self.classifier(self.head(features))
        return logits


class DeepLabV3PlusDecoder(nn.Module):
    """ASPP, then the DeepLabv3+ decoder (Chen et al. 2018, section 3.1).

    features (N, Cin, h, w) and low_level (N, Clow, H, W) -> logits (N, K, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        low_level_channels: int,
        num_classes: int,
        filters: int,
        low_level_filters: int,
        rates: Sequence[int],
        dropout: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.head = AsppHead(in_channels, filters, rates, norm, dropout)
        self.low_level = ConvNormRelu(low_level_channels, low_level_filters, 1, norm)
        self.refine = nn.Sequential(
            ConvNormRelu(filters + low_level_filters, filters, 3, norm), ConvNormRelu(filters, filters, 3, norm)
        )
        self.classifier = nn.Conv2d(filters, num_classes, 1)

    def forward(self, features: Tensor, low_level: Tensor) -> Tensor:
        """See the class."""
        fine = self.low_level(low_level)
        coarse = resize(self.head(features), (fine.shape[-2], fine.shape[-1]))
        logits: Tensor = self.classifier(self.refine(torch.cat([coarse, fine], 1)))
        return logits


class AuxiliaryHead(nn.Sequential):
    """3x3 convolution and a classifier on a feature inside the network, used in training only (PSPNet, Zhao 2017)."""

    def __init__(self, in_channels: int, num_classes: int, norm: Norm) -> None:
        filters = max(in_channels // 4, 16)
        super().__init__(
            ConvNormRelu(in_channels, filters, 3, norm), nn.Dropout(0.1), nn.Conv2d(filters, num_classes, 1)
        )
