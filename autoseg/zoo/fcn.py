"""Fully convolutional networks, FCN-32s, -16s and -8s, on VGG16 (Long, Shelhamer and Darrell 2015).

Convolutions are padded to keep the size, instead of the published 100 zeros around the image, so nothing is cropped.
Bilinear upsampling has aligned corners, as everywhere in autoseg.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.heads import Doubling
from autoseg.zoo.layers import FULLY_CONNECTED, fully_connected, initialise_score, scaled
from autoseg.zoo.vgg import VGG16

SCORED_POOLS: dict[int, tuple[int, ...]] = {32: (), 16: (4,), 8: (4, 3)}
"""Stride of the prediction -> the poolings whose features are scored as well, from coarse to fine."""


class FCN(SegmentationNetwork):
    """VGG16 with its classifier as convolutions, its scores upsampled: (N, Cin, H, W) images -> logits (N, K, H, W).

    `stride`: 32; 16 adds scores of pool4; 8 adds those of pool3 as well. `upsampler` enlarges the scores before each
    addition and to the images' size. A backbone with an output stride below 32 dilates fc6 as well.
    Raises: SearchSpaceError: an unknown upsampler.
    """

    def __init__(
        self, backbone: VGG16, num_classes: int, stride: Literal[32, 16, 8] = 32, upsampler: str = "bilinear",
        dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pools = SCORED_POOLS[stride]
        end, connected = backbone.pooled_strides[-1], scaled(FULLY_CONNECTED, backbone.width)
        self.backbone = backbone
        self.fully_connected = fully_connected(backbone.channels[-1], connected, 7, dropout, rate=32 // end)
        self.score = initialise_score(nn.Conv2d(connected, num_classes, 1))
        for pool in self.pools:
            score = initialise_score(nn.Conv2d(backbone.channels[pool - 1], num_classes, 1))
            self.add_module(f"score_pool{pool}", score)
        strides = [end, *(backbone.pooled_strides[pool - 1] for pool in self.pools), 1]
        factors = [coarse // fine for coarse, fine in pairwise(strides)]
        doublings = (Doubling(upsampler, num_classes, num_classes, factor=factor) for factor in factors)
        self.upsamplers = nn.ModuleList(doublings)
        scored = (f"score_pool{pool}" for pool in self.pools)
        self.stages = (*backbone.stages, "fully_connected.fc6", "fully_connected.fc7", "score", *scored)

    def scores(self, images: Tensor) -> Tensor:
        """See `SegmentationNetwork`."""
        pooled = self.backbone(images).pooled
        scores = self.score(self.fully_connected(pooled[-1]))
        for upsampler, pool in zip(self.upsamplers, self.pools, strict=False):
            joined = pooled[pool - 1]
            size = (joined.shape[-2], joined.shape[-1])
            scores = upsampler(scores, size, joined) + self.get_submodule(f"score_pool{pool}")(joined)
        return self.upsamplers[-1](scores, (images.shape[-2], images.shape[-1]), images)
