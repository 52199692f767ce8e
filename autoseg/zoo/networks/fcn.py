"""FCN-32s, -16s and -8s on VGG16 (Long, Shelhamer and Darrell 2015)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.space.resolution import parse_upsampler
from autoseg.zoo.schema import UNET_UPSAMPLER, Dropout, FixedNetwork


class FcnOptions(FixedNetwork):
    """Options of FCN, by default as published."""

    output_stride: Whole = 32
    batch_norm: Flag = False
    upsampler: str = "bilinear"
    """Upsampler of the scores, before each addition and to the images' size."""
    dropout: Dropout = 0.5

    @model_validator(mode="after")
    def _upsampler_is_known(self) -> FcnOptions:
        if self.upsampler == UNET_UPSAMPLER:
            raise ValueError(f"upsampler '{UNET_UPSAMPLER}' is U-Net's; take transposed_conv here")
        parse_upsampler(self.upsampler)
        return self


def _register(stride: Literal[32, 16, 8]) -> None:
    """Register the network that predicts at this stride."""

    def build(options: FcnOptions, outputs: int) -> Any:
        from autoseg.zoo.fcn import FCN
        from autoseg.zoo.vgg import VGG16

        backbone = VGG16(options.in_channels, options.width, options.batch_norm, options.output_stride)
        return FCN(backbone, outputs, stride, options.upsampler, options.dropout)

    paper = "Long et al., Fully convolutional networks, CVPR 2015"
    register(Network(f"fcn{stride}s_vgg16", paper, FcnOptions, build, f"fcn{stride}s", "vgg16", (8, 16, 32)))


_register(32)
_register(16)
_register(8)
