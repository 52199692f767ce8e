"""U-Net (Ronneberger et al. 2015), and PixelDCN (Gao et al. 2017), which upsamples by pixel deconvolution."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from autoseg.config.base import Flag
from autoseg.registry import Network, register
from autoseg.space.resolution import parse_upsampler
from autoseg.zoo.schema import UNET_UPSAMPLER, Dropout, FixedNetwork


class UNetOptions(FixedNetwork):
    """Options of U-Net, by default as published."""

    batch_norm: Flag = False
    upsampler: str = UNET_UPSAMPLER
    dropout: Dropout = 0.0
    """At the end of the two coarsest levels."""

    @model_validator(mode="after")
    def _upsampler_is_known(self) -> UNetOptions:
        if self.upsampler != UNET_UPSAMPLER:
            parse_upsampler(self.upsampler)
        return self


class PixelDcnOptions(UNetOptions):
    """Options of PixelDCN."""

    batch_norm: Flag = True
    upsampler: str = "pixel_dcl"


def _build(options: UNetOptions, outputs: int) -> Any:
    from autoseg.zoo.unet import UNet

    rest = (options.batch_norm, options.upsampler, options.dropout)
    return UNet(outputs, options.in_channels, options.width, *rest)


register(Network("unet", "Ronneberger et al., U-Net, MICCAI 2015", UNetOptions, _build))
register(Network("pixeldcn", "Gao et al., Pixel deconvolutional networks, 2017", PixelDcnOptions, _build))
