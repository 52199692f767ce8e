"""VGG16's convolutions (Simonyan and Zisserman 2015), under torchvision's names of weights."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from autoseg.ops.layers import Pairs, he_initialise
from autoseg.zoo.layers import MaxPool, scaled, stage_rates

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions before each pooling."""


class VggFeatures(NamedTuple):
    """Five features before pooling and five after it, from fine to coarse."""

    unpooled: list[Tensor]
    """After the last ReLU before each pooling: (N, C, H, W) at `VGG16.strides`, 1, 2, 4, 8, 16 as published."""
    pooled: list[Tensor]
    """After each pooling: at `VGG16.pooled_strides`, 2, 4, 8, 16, 32 as published."""


class VGG16(nn.Module):
    """The thirteen 3x3 convolutions and five poolings: (N, Cin, H, W) -> VggFeatures, both of `channels`.

    `pool`: 2 are VGG's windows, 2x2; 3 are those of DeepLab v1 and v2, 3x3 around the pixel. A smaller `output_stride`
    dilates the later convolutions and 2x2 windows, but not 3x3 windows, as in DeepLab's code. `batch_norm` is
    torchvision's vgg16_bn. Raises: ConfigError: an output stride other than 2, 4, 8, 16 and 32.
    """

    def __init__(
        self, in_channels: int = 3, width: float = 1.0, batch_norm: bool = False, output_stride: int = 32,
        pool: Literal[2, 3] = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        stages = stage_rates([2] * len(STAGES), output_stride)
        self.width, self.batch_norm = width, batch_norm
        self.kind = "VGG16 with BatchNorm" if batch_norm else "VGG16"  # as `weights.recognise` calls it
        self.channels = [scaled(stage[-1], width) for stage in STAGES]
        self.pooled_strides = [stage.output_stride for stage in stages]
        self.strides = [1, *self.pooled_strides[:-1]]
        self.conv_norms: Pairs = ()
        self.features = nn.Sequential()
        self.stages: tuple[str, ...] = ()  # their names in a network, as a picture shows them
        rate = 1
        for widths, stage in zip(STAGES, stages, strict=True):
            for out_channels in (scaled(number, width) for number in widths):
                place = len(self.features)
                self.features.append(nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate))
                if batch_norm:
                    self.features.append(nn.BatchNorm2d(out_channels))
                    self.conv_norms += ((f"features.{place}", f"features.{place + 1}"),)
                self.features.append(nn.ReLU(inplace=True))
                in_channels = out_channels
            self.stages += (f"backbone.features.{len(self.features) - 1}",)
            self.features.append(MaxPool(pool, stage.stride, stage.strided_rate if pool == 2 else 1))
            rate = stage.rate
        he_initialise(self)

    def forward(self, images: Tensor) -> VggFeatures:
        """See the class."""
        features, found = images, VggFeatures([], [])
        for layer in self.features:
            pools = isinstance(layer, MaxPool)
            if pools:
                found.unpooled.append(features)
            features = layer(features)
            if pools:
                found.pooled.append(features)
        return found
