"""DeconvNet (Noh et al. 2015) and SegNet (Badrinarayanan et al. 2017) on VGG16."""

from __future__ import annotations

from autoseg.config.base import Flag
from autoseg.registry import Network, register
from autoseg.zoo.schema import Dropout, FixedNetwork, on_backbone


class UnpoolingOptions(FixedNetwork):
    """Options of either network, by default as published."""

    batch_norm: Flag = True
    dropout: Dropout = 0.0


for _name, _paper in (
    ("DeconvNet", "Noh et al., Learning deconvolution network, ICCV 2015"),
    ("SegNet", "Badrinarayanan et al., SegNet, TPAMI 2017"),
):
    _build = on_backbone("vgg16", "deconvnet", _name)
    register(Network(_name.lower(), _paper, UnpoolingOptions, _build, backbone="vgg16"))
