"""DeepLab v1, v2, v3 and v3+ (Chen et al. 2015, 2018, 2017, 2018) on VGG16, ResNet and Xception-65."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork

V1 = "Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs, ICLR 2015"
V2 = "Chen et al., DeepLab, TPAMI 2018"
V3 = "Chen et al., Rethinking atrous convolution, 2017"
V3_PLUS = "Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018"
CASCADED_BLOCKS = 3
"""Blocks of DeepLabv3's cascade behind those of ResNet."""

Rates = Annotated[tuple[Annotated[Whole, Field(ge=1, le=512)], ...], Field(min_length=1)]
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


OF_BACKBONE = {"in_channels", "width", "output_stride", "batch_norm", "multi_grid"}
"""Options that the backbone takes; the network takes all others."""


def _backbone(name: str, options: FixedNetwork, extra_blocks: int) -> Any:
    own: dict[str, Any] = {key: value for key, value in options if key in OF_BACKBONE}
    if name == "vgg16":
        from autoseg.zoo.vgg import VGG16

        return VGG16(**own, pool=3)
    if name == "xception65":
        from autoseg.zoo.xception import Xception65

        return Xception65(**own)
    from autoseg.zoo.resnet import ResNet

    return ResNet(50 if name == "resnet50" else 101, **own, extra_blocks=extra_blocks)


def _register(
    network: str, on: str, paper: str, options: type[FixedNetwork], class_name: str, *, short: bool = False,
    extra_blocks: int = 0,
) -> None:  # fmt: skip
    """class_name: the network's class in `autoseg.zoo.deeplab`; short: its name without the backbone's means this."""

    def build(given: FixedNetwork, outputs: int) -> Any:
        from autoseg.zoo import deeplab

        own = {key: value for key, value in given if key not in {"name", *OF_BACKBONE}}
        return getattr(deeplab, class_name)(_backbone(on, given, extra_blocks), outputs, **own)

    register(Network(f"{network}_{on}", paper, options, build, network if short else None, on, (8, 16, 32)))


def _register_on_resnets(*arguments: Any, **settings: Any) -> None:
    """On both depths; the short name means the deeper one."""
    network, *rest = arguments
    _register(network, "resnet50", *rest, **settings)
    _register(network, "resnet101", *rest, short=True, **settings)


_register("deeplabv1", "vgg16", V1, V1Options, "DeepLabV1", short=True)
_register("deeplabv2", "vgg16", V2, V2VggOptions, "DeepLabV2")
_register_on_resnets("deeplabv2", V2, V2ResNetOptions, "DeepLabV2")
_register_on_resnets("deeplabv3_cascade", V3, CascadeOptions, "DeepLabV3Cascade", extra_blocks=CASCADED_BLOCKS)
_register_on_resnets("deeplabv3", V3, V3Options, "DeepLabV3")
_register_on_resnets("deeplabv3plus", V3_PLUS, V3PlusOptions, "DeepLabV3Plus")
_register("deeplabv3plus", "xception65", V3_PLUS, V3PlusXceptionOptions, "DeepLabV3Plus")
