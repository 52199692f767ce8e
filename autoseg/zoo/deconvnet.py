"""The networks that unpool where they pooled: DeconvNet (Noh et al. 2015) and SegNet (Badrinarayanan et al. 2017).

Both mirror VGG16: each pooling has an unpooling, which puts a pixel back where the maximum was, and each convolution
has another. DeconvNet's deconvolutions of stride 1 are convolutions here: the same map with the kernel turned. With BN,
convolutions keep their biases, as in both published networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import ConvNormRelu
from autoseg.ops.layers import Norm, he_initialise
from autoseg.ops.upsample import unpool
from autoseg.zoo.layers import FULLY_CONNECTED, fully_connected, initialise_score, scaled
from autoseg.zoo.vgg import STAGES, VGG16


class DeconvNet(SegmentationNetwork):
    """VGG16 with its fully connected layers, and the same backwards: (N, Cin, H, W) images -> logits (N, K, H, W).

    The published network takes 224x224 pixels, and its fc6 (7x7) leaves a single one. Here fc6 and its mirror have zero
    padding, so any size works. `dropout` follows fc6 and fc7 (none published). BN and width are the backbone's.
    """

    def __init__(self, backbone: VGG16, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if backbone.batch_norm else None
        channels, connected = backbone.channels[-1], scaled(FULLY_CONNECTED, backbone.width)
        self.backbone = backbone
        self.fully_connected = fully_connected(channels, connected, 7, dropout, norm=norm or nn.Identity)
        self.fc6_mirror = ConvNormRelu(connected, channels, 7, norm, bias=True)
        self.up = _mirror([len(stage) for stage in STAGES], backbone.channels, norm)
        self.score = initialise_score(nn.Conv2d(backbone.channels[0], num_classes, 1))
        he_initialise(self.fc6_mirror)
        he_initialise(self.up)
        up = (f"up.{stage}" for stage in range(len(self.up)))
        self.stages = (*backbone.stages, "fully_connected", "fc6_mirror", *up, "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        unpooled, pooled = self.backbone(images)
        features = self.fc6_mirror(self.fully_connected(pooled[-1]))
        return self.score(_ascend(self.up, features, unpooled))


class SegNet(SegmentationNetwork):
    """VGG16's convolutions, and the same backwards: (N, Cin, H, W) images -> logits (N, K, H, W).

    The last convolution is the classifier, 3x3, with `dropout` before it (none published). BN is as in the backbone.
    """

    def __init__(self, backbone: VGG16, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if backbone.batch_norm else None
        counts = [len(stage) for stage in STAGES]
        counts[0] -= 1
        self.backbone = backbone
        self.up = _mirror(counts, backbone.channels, norm)
        self.dropout = nn.Dropout(dropout)
        self.score = initialise_score(nn.Conv2d(backbone.channels[0], num_classes, 3, padding=1))
        he_initialise(self.up)
        self.stages = (*backbone.stages, *(f"up.{stage}" for stage in range(len(self.up))), "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        unpooled, pooled = self.backbone(images)
        return self.score(self.dropout(_ascend(self.up, pooled[-1], unpooled)))


def _mirror(counts: Sequence[int], channels: Sequence[int], norm: Norm | None) -> nn.ModuleList:
    """Stages of `counts` 3x3 convolutions; the last has the next finer stage's channels. From fine to coarse."""
    stages = nn.ModuleList()
    for count, own, finer in zip(reversed(counts), reversed(channels), [*channels[-2::-1], channels[0]], strict=True):
        widths = [own] * count + [finer]
        stages.append(nn.Sequential(*(ConvNormRelu(*pair, 3, norm, bias=True) for pair in pairwise(widths))))
    return stages


def _ascend(stages: nn.ModuleList, features: Tensor, unpooled: Sequence[Tensor]) -> Tensor:
    """Unpool and convolve through the stages; `unpooled`: VGG16's features before pooling, from fine to coarse."""
    for stage, guide in zip(stages, reversed(unpooled), strict=True):
        features = stage(unpool(features, guide))
    return features
