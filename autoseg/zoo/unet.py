"""U-Net (Ronneberger et al. 2015); with pixel deconvolution in its decoder it is PixelDCN (Gao et al. 2017).

Convolutions are padded, unlike the published ones: logits have the images' size, and nothing is cropped.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import ConvNormRelu, Doubling, two_convs
from autoseg.ops.interleave import cut, is_channels_last
from autoseg.ops.layers import Norm, Pairs, he_initialise
from autoseg.ops.resize import Size
from autoseg.zoo.layers import MaxPool, initialise_score, scaled
from autoseg.zoo.schema import UNET_UPSAMPLER

CHANNELS = (64, 128, 256, 512, 1024)
"""Channels of each level, from fine to coarse."""
DROPPED_LEVELS = 2
"""Number of coarsest levels that end in dropout, as published."""


class UpConv(nn.Module):
    """U-Net's up-convolution: transposed, kernel 2, stride 2, with bias or BN. (N, Cin, h, w) -> (N, Cout, H, W)."""

    conv_norms: ClassVar[Pairs] = (("conv", "norm"),)

    def __init__(self, in_channels: int, out_channels: int, norm: Norm | None) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=norm is None)
        self.norm = nn.Identity() if norm is None else norm(out_channels)
        self.out_channels = out_channels
        nn.init.normal_(self.conv.weight, std=(2 / in_channels) ** 0.5)  # each output pixel reads one input pixel
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, features: Tensor, size: Size, guide: Tensor | None = None) -> Tensor:
        """`size`: (H, W), twice that of the features or one less. Arguments as of `Doubling`."""
        result = cut(self.conv(features), size)
        if is_channels_last(features):  # a result cut to an odd size is not
            result = result.contiguous(memory_format=torch.channels_last)
        return self.norm(result)


class Up(nn.Module):
    """An upsampler, BN if there is one, ReLU: (N, Cin, h, w) -> (N, out_channels, H, W).

    Both released networks have this ReLU, unlike the papers' texts. `bilinear` only resizes and keeps the channels.
    """

    def __init__(self, upsampler: str, in_channels: int, out_channels: int, norm: Norm | None) -> None:
        super().__init__()
        self.doubling: UpConv | Doubling
        if upsampler == UNET_UPSAMPLER:
            self.doubling = UpConv(in_channels, out_channels, norm)
        else:
            self.doubling = Doubling(upsampler, in_channels, out_channels, norm)
        self.out_channels = self.doubling.out_channels

    def forward(self, features: Tensor, joined: Tensor) -> Tensor:
        """`joined`: the encoder's feature (N, Cd, H, W), which gives the size and guides an unpooling."""
        return F.relu(self.doubling(features, (joined.shape[-2], joined.shape[-1]), joined))


class UNet(SegmentationNetwork):
    """Encoder and decoder of five levels of two 3x3 convolutions; each decoder level joins the encoder's feature.

    forward: (N, Cin, H, W) images -> logits (N, K, H, W). With `batch_norm` a convolution before BN has no bias.
    `upsampler`: U-Net's own, or any name of autoseg's. `dropout` is at the end of the two coarsest levels (0.5 in the
    released network). Raises: SearchSpaceError: an unknown upsampler.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, width: float = 1.0, batch_norm: bool = False,
        upsampler: str = UNET_UPSAMPLER, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels = in_channels
        norm = nn.BatchNorm2d if batch_norm else None
        conv = partial(ConvNormRelu, bias=norm is None)
        channels = [scaled(level, width) for level in CHANNELS]
        self.pool = MaxPool(2, 2, 1)
        self.down = nn.ModuleList(two_convs(*pair, norm, conv) for pair in pairwise([in_channels, *channels]))
        for level in self.down[-DROPPED_LEVELS:]:
            level.append(nn.Dropout(dropout))  # type: ignore[operator]
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for coarse, fine in pairwise(reversed(channels)):
            up = Up(upsampler, coarse, fine, norm)
            self.up.append(up)
            self.join.append(two_convs(up.out_channels + fine, fine, norm, conv))
        self.classifier = initialise_score(nn.Conv2d(channels[0], num_classes, 1))
        he_initialise(self.down)
        he_initialise(self.join)
        decoder = [f"{part}.{level}" for level in range(len(self.up)) for part in ("up", "join")]
        self.stages = (*(f"down.{level}" for level in range(len(self.down))), *decoder, "classifier")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        features, finer = self.down[0](images), []
        for level in self.down[1:]:
            finer.append(features)
            features = level(self.pool(features))
        for up, join, joined in zip(self.up, self.join, reversed(finer), strict=True):
            features = join(torch.cat([up(features, joined), joined], 1))
        return self.classifier(features)
