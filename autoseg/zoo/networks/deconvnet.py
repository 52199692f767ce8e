"""DeconvNet (Noh et al. 2015) and SegNet (Badrinarayanan et al. 2017) on VGG16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.config.base import Flag
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork

if TYPE_CHECKING:
    from autoseg.zoo.deconvnet import DeconvNet, SegNet


class UnpoolingOptions(FixedNetwork):
    """Options of either network, by default as published."""

    batch_norm: Flag = True
    dropout: Dropout = 0.0


def _deconvnet(options: UnpoolingOptions, outputs: int) -> DeconvNet:
    from autoseg.zoo.deconvnet import DeconvNet
    from autoseg.zoo.vgg import VGG16

    backbone = VGG16(options.in_channels, options.width, options.batch_norm)
    return DeconvNet(backbone, outputs, options.batch_norm, options.dropout, options.width)


def _segnet(options: UnpoolingOptions, outputs: int) -> SegNet:
    from autoseg.zoo.deconvnet import SegNet
    from autoseg.zoo.vgg import VGG16

    backbone = VGG16(options.in_channels, options.width, options.batch_norm)
    return SegNet(backbone, outputs, options.batch_norm, options.dropout)


register(
    Network(
        "deconvnet",
        "Noh et al., Learning deconvolution network, ICCV 2015",
        UnpoolingOptions,
        _deconvnet,
        backbone="vgg16",
    )
)
register(Network("segnet", "Badrinarayanan et al., SegNet, TPAMI 2017", UnpoolingOptions, _segnet, backbone="vgg16"))
