"""DeepLab v1, v2, v3 and v3+ (Chen et al. 2015, 2018, 2017, 2018).

All resize their logits bilinearly, from the backbone's output stride; v3+ from stride 4, after its decoder. Rates are
given for the published output stride: 8 in v1 and v2, 16 in v3 and v3+. They grow as the stride becomes smaller: a
kernel then reaches as far in the image. A backbone has its own width, output stride and multi-grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import AsppHead, ConvNormRelu, DeepLabV3PlusDecoder, ScoreDecoder
from autoseg.ops.layers import Chain, he_initialise
from autoseg.zoo.layers import SeparableConvNormRelu, fully_connected, initialise_score, scaled
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.xception import Xception65

FirstClassifier = Literal["3x3", "4x4", "7x7"]
FIRST_CLASSIFIERS: dict[FirstClassifier, tuple[int, int, int]] = {
    "3x3": (3, 1024, 12), "4x4": (4, 4096, 4), "7x7": (7, 4096, 4)
}  # fmt: skip
"""Kernel size, channels and rate of v1's fc6: LargeFOV, DeepLab-CRF-4x4 and -7x7."""
V2_CHANNELS = 1024
"""Channels of fc6 and fc7 in each of v2's branches on VGG16."""
FILTERS, LOW_LEVEL_FILTERS = 256, 48
"""Filters of ASPP and decoder, and of the low-level feature in v3+'s decoder."""
PUBLISHED_STRIDE = {1: 8, 2: 8, 3: 16}
"""Output stride for which each version's rates are given."""


def rates_at(rates: Sequence[int], published_stride: int, output_stride: int) -> tuple[int, ...]:
    """Rates for `published_stride` at another one, whole and at least 1: twice as great at half the stride."""
    return tuple(max(1, rate * published_stride // output_stride) for rate in rates)


class DeepLabV1(SegmentationNetwork):
    """VGG16 that pools 3x3, with dilated convolutions and classifier: (N, Cin, H, W) images -> logits (N, K, H, W)."""

    def __init__(
        self, backbone: VGG16, num_classes: int, first_classifier: FirstClassifier = "3x3", dropout: float = 0.5
    ) -> None:
        super().__init__()
        kernel_size, channels, rate = FIRST_CLASSIFIERS[first_classifier]
        channels = scaled(channels, backbone.width)
        (rate,) = rates_at([rate], PUBLISHED_STRIDE[1], backbone.pooled_strides[-1])
        self.backbone = backbone
        self.fully_connected = fully_connected(backbone.channels[-1], channels, kernel_size, dropout, rate)
        self.score = initialise_score(nn.Conv2d(channels, num_classes, 1))
        self.stages = (*backbone.stages, "fully_connected.fc6", "fully_connected.fc7", "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        return self.score(self.fully_connected(self.backbone(images).pooled[-1]))


class DeepLabV2(SegmentationNetwork):
    """The sum of branches that score the last feature at several rates: (N, Cin, H, W) images -> logits (N, K, H, W).

    On VGG16 (which pools 3x3) a branch is a classifier of its own: fc6 3x3 at the rate, fc7 and the scores. On ResNet
    it is a single 3x3 convolution, without dropout.
    """

    def __init__(
        self, backbone: VGG16 | ResNet, num_classes: int, aspp_rates: Sequence[int] = (6, 12, 18, 24),
        dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        in_channels, channels = backbone.channels[-1], scaled(V2_CHANNELS, backbone.width)
        stride = backbone.pooled_strides[-1] if isinstance(backbone, VGG16) else backbone.strides[-1]
        self.branches = nn.ModuleList()
        for rate in rates_at(aspp_rates, PUBLISHED_STRIDE[2], stride):
            if isinstance(backbone, VGG16):
                connected = fully_connected(in_channels, channels, 3, dropout, rate)
                score = initialise_score(nn.Conv2d(channels, num_classes, 1))
                self.branches.append(Chain(fully_connected=connected, score=score))
            else:
                conv = nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate)
                self.branches.append(initialise_score(conv))
        self.stages = (*backbone.stages, *(f"branches.{number}" for number in range(len(self.branches))))

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        found = self.backbone(images)
        features = (found.pooled if isinstance(self.backbone, VGG16) else found)[-1]
        first, *others = (branch(features) for branch in self.branches)
        return sum(others, first)


class DeepLabV3(SegmentationNetwork):
    """ResNet and ASPP with image pooling: (N, Cin, H, W) images -> logits (N, K, H, W)."""

    def __init__(
        self, backbone: ResNet, num_classes: int, aspp_rates: Sequence[int] = (6, 12, 18), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.backbone = backbone
        rates = rates_at(aspp_rates, PUBLISHED_STRIDE[3], backbone.strides[-1])
        filters = scaled(FILTERS, backbone.width)
        head = AsppHead(backbone.channels[-1], filters, rates, nn.BatchNorm2d, dropout)
        self.decoder = ScoreDecoder(head, filters, num_classes)
        he_initialise(self.decoder)
        initialise_score(self.decoder.classifier)
        self.stages = (*backbone.stages, "decoder.head.aspp", "decoder.head.project", "decoder.classifier")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        return self.decoder(self.backbone(images)[-1])


class DeepLabV3Cascade(SegmentationNetwork):
    """ResNet with `extra_blocks` (three as published) and a classifier: (N, Cin, H, W) -> logits (N, K, H, W)."""

    def __init__(self, backbone: ResNet, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = initialise_score(nn.Conv2d(backbone.channels[-1], num_classes, 1))
        self.stages = (*backbone.stages, "score")

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        return self.score(self.backbone(images)[-1])


class DeepLabV3Plus(SegmentationNetwork):
    """ASPP, upsampled to the backbone's first feature and refined with it: (N, Cin, H, W) -> logits (N, K, H, W)."""

    def __init__(
        self, backbone: ResNet | Xception65, num_classes: int, aspp_rates: Sequence[int] = (6, 12, 18),
        separable: bool = False, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        filters, low_level_filters = (scaled(number, backbone.width) for number in (FILTERS, LOW_LEVEL_FILTERS))
        rates = rates_at(aspp_rates, PUBLISHED_STRIDE[3], backbone.strides[-1])
        self.decoder = DeepLabV3PlusDecoder(
            backbone.channels[-1], backbone.channels[0], num_classes, filters, low_level_filters, rates, dropout,
            nn.BatchNorm2d, conv=SeparableConvNormRelu if separable else ConvNormRelu,
        )  # fmt: skip
        he_initialise(self.decoder)
        initialise_score(self.decoder.classifier)
        parts = ("low_level", "head.aspp", "head.project", "refine", "classifier")
        self.stages = (*backbone.stages, *(f"decoder.{part}" for part in parts))

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        features = self.backbone(images)
        return self.decoder(features[-1], features[:1])
