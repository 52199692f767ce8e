"""DeepLab v1, v2, v3 and v3+ (Chen et al. 2015, 2018, 2017, 2018) on VGG16, ResNet and Xception-65."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from autoseg import limits
from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork, on_backbone

V1 = "Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs, ICLR 2015"
V2 = "Chen et al., DeepLab, TPAMI 2018"
V3 = "Chen et al., Rethinking atrous convolution, 2017"
V3_PLUS = "Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018"

Rates = Annotated[tuple[Annotated[Whole, Field(ge=1, le=512)], ...], Field(min_length=1, max_length=limits.RATES)]
"""Dilation of each branch at the published output stride; twice that at half of it."""
MultiGrid = Annotated[tuple[Annotated[Whole, Field(ge=1, le=64)], ...], Field(min_length=3, max_length=3)]
"""Dilation factors of the three convolutions of ResNet's last block."""


class V1Options(FixedNetwork):
    """Options of DeepLab v1 on VGG16."""

    output_stride: Whole = 8
    batch_norm: Flag = False
    first_classifier: Literal["3x3", "4x4", "7x7"] = "3x3"
    """3x3 is LargeFOV."""
    dropout: Dropout = 0.5


class V2VggOptions(FixedNetwork):
    """Options of DeepLab v2 on VGG16."""

    output_stride: Whole = 8
    batch_norm: Flag = False
    aspp_rates: Rates = (6, 12, 18, 24)
    dropout: Dropout = 0.5


class V2ResNetOptions(FixedNetwork):
    """Options of DeepLab v2 on ResNet."""

    output_stride: Whole = 8
    aspp_rates: Rates = (6, 12, 18, 24)


class CascadeOptions(FixedNetwork):
    """Options of DeepLabv3's cascade."""

    output_stride: Whole = 16
    multi_grid: MultiGrid = (1, 2, 1)


class V3Options(FixedNetwork):
    """Options of DeepLabv3 with ASPP."""

    output_stride: Whole = 16
    aspp_rates: Rates = (6, 12, 18)
    multi_grid: MultiGrid = (1, 2, 4)
    dropout: Dropout = 0.1


class V3PlusOptions(FixedNetwork):
    """Options of DeepLabv3+ on ResNet."""

    output_stride: Whole = 16
    aspp_rates: Rates = (6, 12, 18)
    multi_grid: MultiGrid = (1, 2, 4)
    separable: Flag = False
    """3x3 convolutions of ASPP and decoder as depthwise and 1x1."""
    dropout: Dropout = 0.1


class V3PlusXceptionOptions(FixedNetwork):
    """Options of DeepLabv3+ on Xception-65."""

    output_stride: Whole = 16
    aspp_rates: Rates = (6, 12, 18)
    separable: Flag = True
    dropout: Dropout = 0.1


def _register(
    network: str, on: str, paper: str, options: type[FixedNetwork], class_name: str, *, short: bool = False, **more: Any
) -> None:
    """class_name: the network's class in `autoseg.zoo.deeplab`; short: its name without the backbone's means this.

    more: what is fixed of the backbone.
    """
    build = on_backbone(on, "deeplab", class_name, more)
    register(Network(f"{network}_{on}", paper, options, build, network if short else None, on, (8, 16, 32)))


def _register_on_resnets(*arguments: Any, **settings: Any) -> None:
    """On both depths; the short name means the deeper one."""
    network, *rest = arguments
    _register(network, "resnet50", *rest, **settings)
    _register(network, "resnet101", *rest, short=True, **settings)


_register("deeplabv1", "vgg16", V1, V1Options, "DeepLabV1", short=True, pool=3)
_register("deeplabv2", "vgg16", V2, V2VggOptions, "DeepLabV2", pool=3)
_register_on_resnets("deeplabv2", V2, V2ResNetOptions, "DeepLabV2")
_register_on_resnets("deeplabv3_cascade", V3, CascadeOptions, "DeepLabV3Cascade", extra_blocks=3)
_register_on_resnets("deeplabv3", V3, V3Options, "DeepLabV3")
_register_on_resnets("deeplabv3plus", V3_PLUS, V3PlusOptions, "DeepLabV3Plus")
_register("deeplabv3plus", "xception65", V3_PLUS, V3PlusXceptionOptions, "DeepLabV3Plus")
