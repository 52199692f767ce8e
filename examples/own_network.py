"""A network of one's own: an encoder and a decoder whose features are added, as LinkNet (Chaurasia and Culurciello
2017), without a pretrained backbone."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import autoseg
from autoseg.network.base import SegmentationNetwork


class SmallLinkNetOptions(autoseg.FixedNetwork):
    """Name, width and in_channels are there already."""

    levels: Annotated[int, Field(ge=1, le=5)] = 3
    """Times that the encoder halves its features."""


def block(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class SmallLinkNet(SegmentationNetwork):
    """(N, Cin, H, W) images -> logits (N, K, H, W)."""

    def __init__(self, options: SmallLinkNetOptions, outputs: int) -> None:
        super().__init__()
        channels = [max(1, round(32 * options.width)) << level for level in range(options.levels + 1)]
        self.stem = block(options.in_channels, channels[0], stride=2)
        self.down = nn.ModuleList(block(fine, coarse, 2) for fine, coarse in pairwise(channels))
        self.up = nn.ModuleList(block(coarse, fine) for fine, coarse in pairwise(channels))
        self.score = nn.Conv2d(channels[0], outputs, 1)
        levels = range(options.levels)
        self.stages = ("stem", *(f"down.{level}" for level in levels), *(f"up.{level}" for level in levels), "score")

    def scores(self, images: Tensor) -> Tensor:
        """(N, K, ceil(H / 2), ceil(W / 2)); the base class resizes them to the images."""
        features, finer = self.stem(images), []
        for down in self.down:
            finer.append(features)
            features = down(features)
        for up, joined in zip(reversed(self.up), reversed(finer), strict=True):
            features = joined + F.interpolate(up(features), joined.shape[2:], mode="nearest")
        return self.score(features)


autoseg.register(autoseg.Network("small_linknet", "after LinkNet, VCIP 2017", SmallLinkNetOptions, SmallLinkNet))
