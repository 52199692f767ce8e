"""FCN-32s, -16s and -8s on VGG16 (Long, Shelhamer and Darrell 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.space.resolution import parse_upsampler
from autoseg.zoo.schema import UNET_UPSAMPLER, Dropout, FixedNetwork

if TYPE_CHECKING:
    from autoseg.zoo.fcn import FCN


class FcnOptions(FixedNetwork):
    """Options of FCN, by default as published."""

    output_stride: Whole = 32
    batch_norm: Flag = False
    upsampler: str = "bilinear"
    """Of the scores, at each addition and at last to the images."""
    dropout: Dropout = 0.5

    @model_validator(mode="after")
    def _upsampler_is_known(self) -> FcnOptions:
        if self.upsampler == UNET_UPSAMPLER:
            raise ValueError(f"upsampler '{UNET_UPSAMPLER}' is U-Net's; take transposed_conv here")
        parse_upsampler(self.upsampler)
        return self


def _fcn(stride: Literal[32, 16, 8]) -> Network:
    """The network that predicts at this stride."""

    def build(options: FcnOptions, outputs: int) -> FCN:
        from autoseg.zoo.fcn import FCN
        from autoseg.zoo.vgg import VGG16

        backbone = VGG16(options.in_channels, options.width, options.batch_norm, options.output_stride)
        return FCN(backbone, outputs, stride, options.upsampler, options.dropout, options.width)

    return Network(
        f"fcn{stride}s_vgg16",
        "Long et al., Fully convolutional networks, CVPR 2015",
        FcnOptions,
        build,
        short=f"fcn{stride}s",
        backbone="vgg16",
        output_strides=(8, 16, 32),
    )


register(_fcn(32))
register(_fcn(16))
register(_fcn(8))
