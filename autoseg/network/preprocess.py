"""The preprocessing of a cell's input: to the node's size and its number of filters.

Every module takes the feature (N, Cin, h, w), the node's (H, W), and the encoder feature of that size, if any.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.genotype.node_inputs import is_plain
from autoseg.genotype.schema import Genotype
from autoseg.ops.heads import Doubling
from autoseg.ops.interleave import every_second
from autoseg.ops.layers import Norm, Pairs, ReluConvNorm, pointwise
from autoseg.ops.resize import Size, resize
from autoseg.space.resolution import Skip
from autoseg.space.trellis import Arrow, Move


class Same(nn.Module):
    """ReLU alone: an arrow between stages of one level and width."""

    def forward(self, features: Tensor, size: Size | None = None, encoder_feature: Tensor | None = None) -> Tensor:
        """(N, C, H, W) unchanged in shape."""
        return F.relu(features)


class Preprocess(ReluConvNorm):
    """ReLU, 1x1 convolution, BN; on a plain up move after bilinear resizing (Auto-DeepLab, eq. 6)."""

    def __init__(self, in_channels: int, channels: int, up: bool, norm: Norm) -> None:
        super().__init__(in_channels, channels, norm)
        self.up = up

    def forward(self, features: Tensor, size: Size | None = None, encoder_feature: Tensor | None = None) -> Tensor:
        """(N, Cin, h, w) -> (N, C, H, W) on an up move, else (N, C, h, w)."""
        resized = resize(features, size) if self.up and size is not None else features
        return super().forward(resized)  # type: ignore[no-untyped-call]


class FactorizedReduce(nn.Module):
    """The factorised reduction of DARTS (Liu et al. 2019): (N, Cin, h, w) -> (N, C, H, W), half the size.

    ReLU, then two 1x1 convolutions of stride 2 for half the channels each, one of them a pixel off, and BN.
    """

    conv_norms: ClassVar[Pairs] = (("conv", "norm"), ("conv_offset", "norm_offset"))

    def __init__(self, in_channels: int, channels: int, norm: Norm) -> None:
        super().__init__()
        second = channels // 2
        self.conv = pointwise(in_channels, channels - second)
        self.norm = norm(channels - second)
        self.conv_offset = pointwise(in_channels, second) if second else nn.Identity()
        self.norm_offset = norm(second) if second else nn.Identity()

    def forward(self, features: Tensor, size: Size, encoder_feature: Tensor | None = None) -> Tensor:
        """See the class."""
        features = F.relu(features)
        parts = [self.norm(self.conv(every_second(features)))]
        if isinstance(self.conv_offset, nn.Conv2d):
            shifted = F.pad(features, (-1, 1, -1, 1))  # a last odd row or column meets zeros
            parts.append(self.norm_offset(self.conv_offset(every_second(shifted))))
        return torch.cat(parts, 1)


class UpsamplePreprocess(nn.Module):
    """Any upsampler, with or without the encoder feature: (N, Cin, h, w) -> (N, C, H, W), twice the size.

    Bilinear: resizing, ReLU, 1x1 convolution, BN. Other upsamplers: ReLU, 1x1 convolution to C channels at the lower
    resolution, upsampler, BN; so all of them double features of equal width. Skip `add`: plus the encoder feature after
    ReLU, 1x1 convolution and BN. Skip `concat`: concatenated with it, then ReLU, 1x1 convolution, BN. Bilinear has only
    this last convolution, as U-Net has (Ronneberger et al. 2015).
    """

    def __init__(
        self, in_channels: int, channels: int, upsampler: str, skip: Skip, encoder_channels: int, norm: Norm
    ) -> None:
        super().__init__()
        bilinear = upsampler == "bilinear"
        self.skip = skip
        self.narrow = None if bilinear else pointwise(in_channels, channels)
        self.doubling = Doubling(upsampler, in_channels if bilinear else channels, channels, norm)
        width = self.doubling.out_channels + (encoder_channels if skip == "concat" else 0)
        self.merge = ReluConvNorm(width, channels, norm) if bilinear or skip == "concat" else None
        self.side = ReluConvNorm(encoder_channels, channels, norm) if skip == "add" else None

    def forward(self, features: Tensor, size: Size, encoder_feature: Tensor) -> Tensor:
        """See the class; encoder_feature: (N, Cd, H, W)."""
        if self.narrow is not None:
            features = self.narrow(F.relu(features))
        features = self.doubling(features, size, encoder_feature)
        if self.skip == "concat":
            features = torch.cat([features, encoder_feature], 1)
        if self.merge is not None:
            features = self.merge(features)
        return features if self.side is None else features + self.side(encoder_feature)


def build_preprocess(
    genotype: Genotype, arrow: Arrow, in_channels: int, encoder_channels: int, norm: Norm
) -> nn.Module:
    """The preprocessing of an arrow; on a path's down move the stride is in the cell's operations (Auto-DeepLab)."""
    channels, staged = genotype.filters(arrow.target.level), genotype.stage(arrow.target.level) is not None
    if staged and arrow.move is Move.SAME and in_channels == channels:
        return Same()
    if arrow.move is Move.UP and not is_plain(genotype, arrow):
        names = genotype.upsampler(arrow), genotype.skip(arrow)
        return UpsamplePreprocess(in_channels, channels, *names, encoder_channels, norm)
    if arrow.move is Move.DOWN and (staged or not genotype.is_path):
        return FactorizedReduce(in_channels, channels, norm)
    return Preprocess(in_channels, channels, arrow.move is Move.UP, norm)
