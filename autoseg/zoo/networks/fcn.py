"""FCN-32s, -16s and -8s on VGG16 (Long, Shelhamer and Darrell 2015)."""

from __future__ import annotations

from pydantic import model_validator

from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.space.resolution import parse_upsampler
from autoseg.zoo.schema import UNET_UPSAMPLER, Dropout, FixedNetwork, on_backbone

PAPER = "Long et al., Fully convolutional networks, CVPR 2015"


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


for _stride in (32, 16, 8):  # of the prediction
    _build = on_backbone("vgg16", "fcn", "FCN", stride=_stride)
    register(Network(f"fcn{_stride}s_vgg16", PAPER, FcnOptions, _build, f"fcn{_stride}s", "vgg16", (8, 16, 32)))
