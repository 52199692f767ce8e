"""DeepLab v1, v2, v3 and v3+ (Chen et al. 2015, 2018, 2017, 2018) on VGG16, ResNet and Xception-65."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from autoseg.config.base import Flag, Whole
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork

if TYPE_CHECKING:
    from autoseg.network.base import SegmentationNetwork
    from autoseg.zoo.deeplab import DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Cascade, DeepLabV3Plus
    from autoseg.zoo.resnet import ResNet

V1 = "Chen et al., Semantic image segmentation with deep convolutional nets and fully connected CRFs, ICLR 2015"
V2 = "Chen et al., DeepLab, TPAMI 2018"
V3 = "Chen et al., Rethinking atrous convolution, 2017"
V3_PLUS = "Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018"
CASCADED_BLOCKS = 3
"""Blocks of DeepLabv3's cascade behind ResNet's own."""

Rates = Annotated[tuple[Annotated[Whole, Field(ge=1, le=512)], ...], Field(min_length=1)]
"""Dilation of each branch at the published output stride; twice that at half of it."""
MultiGrid = Annotated[tuple[Annotated[Whole, Field(ge=1, le=64)], ...], Field(min_length=3, max_length=3)]
"""Factors of the dilation of the three convolutions of ResNet's last block."""


# --- options, by default as published ---------------------------------------------------------------------------------


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


# --- builders ---------------------------------------------------------------------------------------------------------


def _v1(options: V1Options, outputs: int) -> DeepLabV1:
    from autoseg.zoo.deeplab import DeepLabV1
    from autoseg.zoo.vgg import VGG16

    backbone = VGG16(options.in_channels, options.width, options.batch_norm, options.output_stride, pool=3)
    return DeepLabV1(backbone, outputs, options.first_classifier, options.dropout, options.width)


def _v2_vgg(options: V2VggOptions, outputs: int) -> DeepLabV2:
    from autoseg.zoo.deeplab import DeepLabV2
    from autoseg.zoo.vgg import VGG16

    backbone = VGG16(options.in_channels, options.width, options.batch_norm, options.output_stride, pool=3)
    return DeepLabV2(backbone, outputs, options.aspp_rates, options.dropout, options.width)


def _resnet(depth: Literal[50, 101], options: Any, extra_blocks: int = 0) -> ResNet:
    from autoseg.zoo.resnet import ResNet

    grid = getattr(options, "multi_grid", (1, 1, 1))
    return ResNet(depth, options.in_channels, options.width, options.output_stride, grid, extra_blocks)


def _v2(depth: Literal[50, 101], options: V2ResNetOptions, outputs: int) -> DeepLabV2:
    from autoseg.zoo.deeplab import DeepLabV2

    return DeepLabV2(_resnet(depth, options), outputs, options.aspp_rates, width=options.width)


def _v3_cascade(depth: Literal[50, 101], options: CascadeOptions, outputs: int) -> DeepLabV3Cascade:
    from autoseg.zoo.deeplab import DeepLabV3Cascade

    return DeepLabV3Cascade(_resnet(depth, options, CASCADED_BLOCKS), outputs)


def _v3(depth: Literal[50, 101], options: V3Options, outputs: int) -> DeepLabV3:
    from autoseg.zoo.deeplab import DeepLabV3

    return DeepLabV3(_resnet(depth, options), outputs, options.aspp_rates, options.dropout, options.width)


def _v3_plus(depth: Literal[50, 101], options: V3PlusOptions, outputs: int) -> DeepLabV3Plus:
    from autoseg.zoo.deeplab import DeepLabV3Plus

    backbone = _resnet(depth, options)
    return DeepLabV3Plus(
        backbone, outputs, options.aspp_rates, options.separable, options.dropout, options.width
    )  # fmt: skip


def _v3_plus_xception(options: V3PlusXceptionOptions, outputs: int) -> DeepLabV3Plus:
    from autoseg.zoo.deeplab import DeepLabV3Plus
    from autoseg.zoo.xception import Xception65

    backbone = Xception65(options.in_channels, options.width, options.output_stride)
    return DeepLabV3Plus(
        backbone, outputs, options.aspp_rates, options.separable, options.dropout, options.width
    )  # fmt: skip


# --- records ----------------------------------------------------------------------------------------------------------


def _on(
    backbone: str, name: str, paper: str, options: type[FixedNetwork],
    build: Callable[[Any, int], SegmentationNetwork], short: str | None = None,
) -> None:  # fmt: skip
    register(Network(f"{name}_{backbone}", paper, options, build, short, backbone, output_strides=(8, 16, 32)))


def _on_resnets(
    name: str, paper: str, options: type[FixedNetwork],
    build: Callable[[Literal[50, 101], Any, int], SegmentationNetwork],
) -> None:  # fmt: skip
    """Both depths; the short name means the deeper one."""
    _on("resnet50", name, paper, options, lambda given, outputs: build(50, given, outputs))
    _on("resnet101", name, paper, options, lambda given, outputs: build(101, given, outputs), short=name)


_on("vgg16", "deeplabv1", V1, V1Options, _v1, short="deeplabv1")
_on("vgg16", "deeplabv2", V2, V2VggOptions, _v2_vgg)
_on_resnets("deeplabv2", V2, V2ResNetOptions, _v2)
_on_resnets("deeplabv3_cascade", V3, CascadeOptions, _v3_cascade)
_on_resnets("deeplabv3", V3, V3Options, _v3)
_on_resnets("deeplabv3plus", V3_PLUS, V3PlusOptions, _v3_plus)
_on("xception65", "deeplabv3plus", V3_PLUS, V3PlusXceptionOptions, _v3_plus_xception)
