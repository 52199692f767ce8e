"""DeconvNet (Noh et al. 2015) and SegNet (Badrinarayanan et al. 2017) on VGG16."""

from __future__ import annotations

from typing import Any

from autoseg.config.base import Flag
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork


class UnpoolingOptions(FixedNetwork):
    """Options of either network, by default as published."""

    batch_norm: Flag = True
    dropout: Dropout = 0.0


def _register(name: str, paper: str, class_name: str) -> None:
    def build(options: UnpoolingOptions, outputs: int) -> Any:
        from autoseg.zoo import deconvnet
        from autoseg.zoo.vgg import VGG16

        backbone = VGG16(options.in_channels, options.width, options.batch_norm)
        return getattr(deconvnet, class_name)(backbone, outputs, options.dropout)

    register(Network(name, paper, UnpoolingOptions, build, backbone="vgg16"))


_register("deconvnet", "Noh et al., Learning deconvolution network, ICCV 2015", "DeconvNet")
_register("segnet", "Badrinarayanan et al., SegNet, TPAMI 2017", "SegNet")
