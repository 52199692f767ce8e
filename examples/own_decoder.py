"""A decoder of one's own: a classifier that also sees the mean of the whole image (ParseNet, Liu et al. 2015)."""

from collections.abc import Sequence

from torch import Tensor, nn

import autoseg
from autoseg.registry import DecoderInputs


class ParseNetDecoder(nn.Module):
    """(N, C, h, w) features of the last layer -> logits (N, K, h, w)."""

    def __init__(self, given: DecoderInputs) -> None:
        super().__init__()
        filters = given.settings.filters
        self.own = nn.Conv2d(given.channels, filters, 1)
        self.of_image = nn.Conv2d(given.channels, filters, 1)
        self.dropout = nn.Dropout(given.settings.dropout)
        self.classifier = nn.Conv2d(filters, given.num_classes, 1)

    def forward(self, features: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """`finer`, the features that it joins, is empty."""
        mean = features.mean((2, 3), keepdim=True)
        return self.classifier(self.dropout((self.own(features) + self.of_image(mean)).relu()))


autoseg.register(autoseg.Decoder("parsenet", label="ParseNet", build=ParseNetDecoder))
