"""DeepLab v1, v2, v3 and v3+ (Chen et al. 2015, 2018, 2017, 2018).

All upsample their logits bilinearly, from the backbone's output stride; v3+ after its decoder, from stride 4. Rates are
given for the published output stride, 8 in v1 and v2, 16 in v3 and v3+, and grow as the stride becomes smaller, so that
a kernel reaches as far in the image. A backbone brings its own output stride and multi-grid.

Letters: N images, C channels, K classes, H height, W width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import AsppDecoder, ConvNormRelu, DeepLabV3PlusDecoder
from autoseg.zoo.initialisation import he_initialise
from autoseg.zoo.layers import FullyConnected, SeparableConvNormRelu, initialise_score, vgg_stages
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.width import scaled
from autoseg.zoo.xception import ENTRY, LOW_LEVEL_BLOCK, Xception65

FirstClassifier = Literal["3x3", "4x4", "7x7"]
FIRST_CLASSIFIERS: dict[FirstClassifier, tuple[int, int, int]] = {
    "3x3": (3, 1024, 12),
    "4x4": (4, 4096, 4),
    "7x7": (7, 4096, 4),
}
"""Kernel, channels and rate of v1's fc6: LargeFOV, DeepLab-CRF-4x4 and -7x7."""
V2_CHANNELS = 1024
"""Of fc6 and fc7 in each of v2's branches on VGG16."""
FILTERS, LOW_LEVEL_FILTERS = 256, 48
"""Of ASPP and decoder, and of the low-level feature in v3+'s decoder."""
PUBLISHED_STRIDE = {1: 8, 2: 8, 3: 16}
"""Output stride for which each version's rates are given."""


def rates_at(rates: Sequence[int], published_stride: int, output_stride: int) -> tuple[int, ...]:
    """Rates for `published_stride` at another one, whole and at least 1: twice as great at half the stride."""
    return tuple(max(1, rate * published_stride // output_stride) for rate in rates)


class DeepLabV1(SegmentationNetwork):
    """VGG16 with dilated convolutions and classifier: (N, Cin, H, W) images -> logits (N, K, H, W).

    The backbone pools 3x3. `first_classifier`: 3x3 is LargeFOV, of 1024 channels; 4x4 and 7x7 have VGG16's 4096.
    """

    def __init__(
        self,
        backbone: VGG16,
        num_classes: int,
        first_classifier: FirstClassifier = "3x3",
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        kernel_size, channels, rate = FIRST_CLASSIFIERS[first_classifier]
        channels = scaled(channels, width)
        (rate,) = rates_at([rate], PUBLISHED_STRIDE[1], backbone.pooled_strides[-1])
        self.backbone = backbone
        self.fully_connected = FullyConnected(backbone.channels[-1], channels, kernel_size, dropout, rate)
        self.score = initialise_score(nn.Conv2d(channels, num_classes, 1))
        self.stages = (*vgg_stages(backbone), "fully_connected.fc6", "fully_connected.fc7", "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        logits: Tensor = self.score(self.fully_connected(self.backbone(images).pooled[-1]))
        return logits


class DeepLabV2(SegmentationNetwork):
    """The sum of branches that score the last feature at several rates: (N, Cin, H, W) images -> logits (N, K, H, W).

    On VGG16 (which pools 3x3) a branch is a classifier of its own, fc6 3x3 at the rate, fc7 and the scores; on ResNet a
    single 3x3 convolution, without dropout.
    """

    def __init__(
        self,
        backbone: VGG16 | ResNet,
        num_classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18, 24),
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.backbone = num_classes, backbone
        of_vgg = isinstance(backbone, VGG16)
        stride = backbone.pooled_strides[-1] if isinstance(backbone, VGG16) else backbone.strides[-1]
        rates = rates_at(aspp_rates, PUBLISHED_STRIDE[2], stride)
        in_channels, channels = backbone.channels[-1], scaled(V2_CHANNELS, width)
        self.branches = nn.ModuleList(
            _classifier(in_channels, channels, num_classes, rate, dropout)
            if of_vgg
            else initialise_score(nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate))
            for rate in rates
        )
        self.stages = (*_stages(backbone), *(f"branches.{number}" for number in range(len(rates))))

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        found = self.backbone(images)
        features = (found.pooled if isinstance(self.backbone, VGG16) else found)[-1]
        first, *others = (branch(features) for branch in self.branches)
        logits: Tensor = sum(others, first)
        return logits


class DeepLabV3(SegmentationNetwork):
    """ResNet and ASPP with image pooling: (N, Cin, H, W) images -> logits (N, K, H, W)."""

    def __init__(
        self,
        backbone: ResNet,
        num_classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.1,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.backbone = num_classes, backbone
        rates = rates_at(aspp_rates, PUBLISHED_STRIDE[3], backbone.strides[-1])
        self.decoder = AsppDecoder(
            backbone.channels[-1], num_classes, scaled(FILTERS, width), rates, dropout, nn.BatchNorm2d
        )
        he_initialise(self.decoder)
        initialise_score(self.decoder.classifier)
        self.stages = (*_stages(backbone), "decoder.head.aspp", "decoder.head.project", "decoder.classifier")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        logits: Tensor = self.decoder(self.backbone(images)[-1])
        return logits


class DeepLabV3Cascade(SegmentationNetwork):
    """ResNet with blocks behind its last one, and a classifier: (N, Cin, H, W) images -> logits (N, K, H, W).

    The published backbone has three `extra_blocks`.
    """

    def __init__(self, backbone: ResNet, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.backbone = num_classes, backbone
        self.score = initialise_score(nn.Conv2d(backbone.channels[-1], num_classes, 1))
        self.stages = (*_stages(backbone), "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        logits: Tensor = self.score(self.backbone(images)[-1])
        return logits


class DeepLabV3Plus(SegmentationNetwork):
    """ASPP, upsampled to the backbone's first feature and refined with it: (N, Cin, H, W) -> logits (N, K, H, W).

    `separable`: the 3x3 convolutions of ASPP and decoder are depthwise and 1x1, each with BN and ReLU.
    """

    def __init__(
        self,
        backbone: ResNet | Xception65,
        num_classes: int,
        aspp_rates: Sequence[int] = (6, 12, 18),
        separable: bool = False,
        dropout: float = 0.1,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.backbone = num_classes, backbone
        self.decoder = DeepLabV3PlusDecoder(
            backbone.channels[-1],
            backbone.channels[0],
            num_classes,
            scaled(FILTERS, width),
            scaled(LOW_LEVEL_FILTERS, width),
            rates_at(aspp_rates, PUBLISHED_STRIDE[3], backbone.strides[-1]),
            dropout,
            nn.BatchNorm2d,
            conv=SeparableConvNormRelu if separable else ConvNormRelu,
        )
        he_initialise(self.decoder)
        initialise_score(self.decoder.classifier)
        parts = ("low_level", "head.aspp", "head.project", "refine", "classifier")
        self.stages = (*_stages(backbone), *(f"decoder.{part}" for part in parts))

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        features = self.backbone(images)
        logits: Tensor = self.decoder(features[-1], features[:1])
        return logits


def _classifier(in_channels: int, channels: int, num_classes: int, rate: int, dropout: float) -> nn.Sequential:
    """fc6 3x3 at `rate`, fc7 and the scores."""
    connected = FullyConnected(in_channels, channels, 3, dropout, rate)
    score = initialise_score(nn.Conv2d(channels, num_classes, 1))
    return nn.Sequential(OrderedDict(fully_connected=connected, score=score))


def _stages(backbone: VGG16 | ResNet | Xception65) -> tuple[str, ...]:
    """Names of what a reader would call the backbone's stages, in the order in which they run."""
    if isinstance(backbone, VGG16):
        return vgg_stages(backbone)
    if isinstance(backbone, ResNet):
        layers = range(1, len(backbone.channels) + 1)
        return ("backbone.conv1", *(f"backbone.layer{number}" for number in layers))
    *middle, exit_flow, end = range(len(ENTRY), len(backbone.blocks))
    read = f"{LOW_LEVEL_BLOCK}.stack.conv"
    blocks = ("0", f"{read}2", "2", *middle[3::4], exit_flow, end)  # of the middle flow every fourth
    return ("backbone.stem.1", *(f"backbone.blocks.{block}" for block in blocks))
