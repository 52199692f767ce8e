"""Stem and heads, shared by the supernet and the discrete networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.ops.interleave import is_channels_last
from autoseg.ops.layers import Chain, Norm, Pairs
from autoseg.ops.resize import Size, resize
from autoseg.ops.upsample import TransposedConv, upsample_by
from autoseg.registry import DecoderInputs


def number_of_outputs(num_classes: int, single_output: bool) -> int:
    """Number of a network's score maps. Raises: ConfigError: a single output for other than two classes."""
    if single_output and num_classes != 2:
        message = f"a single output is for two classes, not {num_classes}; set single_output to false"
        raise ConfigError(message, code="single-output-needs-two-classes")
    return 1 if single_output else num_classes


def logits_of(outputs: Tensor) -> Tensor:
    """(N, K, H, W) unchanged; a single output z, (N, 1, H, W), becomes the logits 0 and z: softmax is then sigmoid."""
    return F.pad(outputs, (0, 0, 0, 0, 1, 0)) if outputs.shape[1] == 1 else outputs


class ConvNormRelu(nn.Sequential):
    """Convolution, normalisation if there is one, ReLU; keeps the size."""

    conv_norms: ClassVar[Pairs] = (("0", "1"),)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, norm: Norm | None, rate: int = 1,
        bias: bool = False,
    ) -> None:  # fmt: skip
        padding = rate * (kernel_size // 2)
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=rate, bias=bias)
        super().__init__(conv, nn.Identity() if norm is None else norm(out_channels), nn.ReLU(inplace=True))


class Stem(nn.Module):
    """3x3 convolutions, each with BN, ReLU between them: (N, Cin, H, W) -> H(-1) and H(0).

    The features of the last two before their ReLU: every cell begins with one (Auto-DeepLab's code, nas_network.py).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], norm: Norm, in_channels: int = 3) -> None:
        super().__init__()
        sizes = zip((in_channels, *channels), channels, strides, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(before, after, 3, step, 1, bias=False) for before, after, step in sizes)
        self.norms = nn.ModuleList(norm(after) for after in channels)
        self.out_channels = (channels[-2:][0], channels[-1])  # of H(-1) and H(0)
        self.conv_norms: Pairs = tuple((f"convs.{number}", f"norms.{number}") for number in range(len(channels)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """H(-1) and H(0); the same feature twice if the stem has a single convolution."""
        before = features = self.norms[0](self.convs[0](images))
        for conv, norm in zip(self.convs[1:], self.norms[1:], strict=True):
            before, features = features, norm(conv(F.relu(features)))
        return before, features


Conv = Callable[..., nn.Module]
"""Makes a 3x3 convolution; called like `ConvNormRelu`."""


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling without its projection (Chen et al. 2017, section 3.3).

    A 1x1 convolution, a 3x3 one a rate and image pooling, joined: (N, Cin, H, W) -> (N, (2 + rates) * filters, H, W).
    """

    def __init__(
        self, in_channels: int, filters: int, rates: Sequence[int], norm: Norm, conv: Conv = ConvNormRelu
    ) -> None:
        super().__init__()
        self.pointwise = ConvNormRelu(in_channels, filters, 1, norm)
        self.atrous = nn.ModuleList(conv(in_channels, filters, 3, norm, rate) for rate in rates)
        self.pooled = ConvNormRelu(in_channels, filters, 1, norm)
        self.out_channels = (2 + len(rates)) * filters

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        pooled = self.pooled(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        if is_channels_last(features):
            pooled = pooled.contiguous(memory_format=torch.channels_last)  # expanded, it would make the result NCHW
        return torch.cat([self.pointwise(features), *(conv(features) for conv in self.atrous), pooled], 1)


class AsppHead(Chain):
    """ASPP projected to `filters` channels: the encoder's end. (N, Cin, H, W) -> (N, filters, H, W)."""

    def __init__(
        self, in_channels: int, filters: int, rates: Sequence[int], norm: Norm, dropout: float,
        conv: Conv = ConvNormRelu,
    ) -> None:  # fmt: skip
        aspp = Aspp(in_channels, filters, rates, norm, conv)
        project = ConvNormRelu(aspp.out_channels, filters, 1, norm)
        super().__init__(aspp=aspp, project=project, dropout=nn.Dropout(dropout))


# --- from one resolution to the next ---------------------------------------------------------------------------------


class Doubling(nn.Module):
    """One upsampler, BN if given: (N, Cin, h, w) -> (N, out_channels, H, W). `bilinear` resizes and keeps channels.

    `factor`: 4, 8, ... doubles repeatedly, but `bilinear` in one go; 1 keeps size and channels.
    """

    def __init__(
        self, upsampler: str, in_channels: int, out_channels: int, norm: Norm | None = None, factor: int = 2
    ) -> None:
        super().__init__()
        plain = upsampler == "bilinear" or factor == 1
        self.up = None if plain else upsample_by(upsampler, factor, in_channels, out_channels)
        self.norm = None if plain or norm is None else norm(out_channels)
        self.out_channels = in_channels if plain else out_channels
        foldable = isinstance(self.up, TransposedConv) and self.norm is not None
        self.conv_norms: Pairs = (("up.conv", "norm"),) if foldable else ()

    def forward(self, features: Tensor, size: Size, guide: Tensor | None = None) -> Tensor:
        """`size`: (H, W), `factor` times that of the features or up to `factor` - 1 less.

        `guide`: a feature, or the images, of that size, for unpooling.
        """
        if self.up is None:
            return resize(features, size)
        result: Tensor = self.up(features, size, guide)
        if is_channels_last(features):  # a result cut to an odd size, or shuffled, is not
            result = result.contiguous(memory_format=torch.channels_last)
        return result if self.norm is None else self.norm(result)


class Doublings(nn.ModuleList):
    """One doubling after the other, all of C channels: (N, C, h, w) -> (N, C, H, W)."""

    def __init__(self, upsamplers: Sequence[str], channels: int, norm: Norm | None = None) -> None:
        super().__init__(Doubling(name, channels, channels, norm) for name in upsamplers)

    def forward(self, features: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """`finer`: a feature at each size, from coarse to fine, at least as many as there are doublings."""
        for doubling, guide in zip(self, finer, strict=False):
            features = doubling(features, (guide.shape[-2], guide.shape[-1]), guide)
        return features


# --- decoders --------------------------------------------------------------------------------------------------------
#
# Called with the features of the network's end after their ReLU, (N, Cin, h, w), and `finer`: encoder features before
# their ReLU, one for each doubling, from coarse to fine. `upsamplers` names an upsampler for each doubling.


class ScoreDecoder(nn.Module):
    """A 1x1 convolution on `head`, an `AsppHead` or dropout of `channels` outputs, then doublings: (N, K, h, w)."""

    def __init__(self, head: nn.Module, channels: int, num_classes: int, upsamplers: Sequence[str] = ()) -> None:
        super().__init__()
        self.head = head
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.doublings = Doublings(upsamplers, num_classes)

    def forward(self, features: Tensor, finer: Sequence[Tensor] = ()) -> Tensor:
        """`finer` gives sizes and guides alone."""
        return self.doublings(self.classifier(self.head(features)), finer)


class DeepLabV3PlusDecoder(nn.Module):
    """ASPP, then the DeepLabv3+ decoder (Chen et al. 2018, section 3.1): -> logits (N, K, H, W).

    The last of `finer`, (N, Clow, H, W), is the low-level feature. ASPP's features are doubled by each of `upsamplers`,
    then resized bilinearly to its size.
    """

    def __init__(
        self, in_channels: int, low_level_channels: int, num_classes: int, filters: int, low_level_filters: int,
        rates: Sequence[int], dropout: float, norm: Norm, upsamplers: Sequence[str] = (), conv: Conv = ConvNormRelu,
    ) -> None:  # fmt: skip
        """conv: makes the 3x3 convolutions of ASPP and after the concatenation."""
        super().__init__()
        self.head = AsppHead(in_channels, filters, rates, norm, dropout, conv)
        self.doublings = Doublings(upsamplers, filters, norm)
        self.low_level = ConvNormRelu(low_level_channels, low_level_filters, 1, norm)
        self.refine = two_convs(filters + low_level_filters, filters, norm, conv)
        self.classifier = nn.Conv2d(filters, num_classes, 1)

    def forward(self, features: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """See the class."""
        fine = self.low_level(finer[-1])
        coarse = resize(self.doublings(self.head(features), finer), (fine.shape[-2], fine.shape[-1]))
        return self.classifier(self.refine(torch.cat([coarse, fine], 1)))


class UNetDecoder(nn.Module):
    """U-Net's decoder (Ronneberger et al. 2015): -> logits (N, K, H, W) at the size of the last of `finer`.

    Each doubling: the upsampler (with BN, unless bilinear), concatenation with the encoder feature of that size
    after a ReLU, two 3x3 convolutions with BN and ReLU. Upsampler and convolutions have as many outputs as that feature
    has channels, as in U-Net, but no more than `filters`.
    """

    def __init__(self, given: DecoderInputs) -> None:
        super().__init__()
        self.doublings, self.refine = nn.ModuleList(), nn.ModuleList()
        channels = given.channels
        for upsampler, joined in zip(given.upsamplers, given.finer, strict=True):
            width = min(given.settings.filters, joined)
            doubling = Doubling(upsampler, channels, width, given.norm)
            self.doublings.append(doubling)
            self.refine.append(two_convs(doubling.out_channels + joined, width, given.norm))
            channels = width
        self.dropout = nn.Dropout(given.settings.dropout)
        self.classifier = nn.Conv2d(channels, given.num_classes, 1)

    def forward(self, features: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """See the class."""
        for doubling, refine, joined in zip(self.doublings, self.refine, finer, strict=True):
            doubled = doubling(features, (joined.shape[-2], joined.shape[-1]), joined)
            features = refine(torch.cat([doubled, F.relu(joined)], 1))
        return self.classifier(self.dropout(features))


class FcnDecoder(nn.Module):
    """Score maps of several strides, summed from coarse to fine (FCN-8s; Long et al. 2015): -> logits (N, K, H, W).

    1x1 convolutions score the end and each of `finer` after a ReLU. Each doubling enlarges the sum and adds the next.
    """

    def __init__(self, given: DecoderInputs) -> None:
        super().__init__()
        self.dropout = nn.Dropout(given.settings.dropout)
        self.classifier, *scores = (nn.Conv2d(width, given.num_classes, 1) for width in (given.channels, *given.finer))
        self.scores = nn.ModuleList(scores)
        self.doublings = Doublings(given.upsamplers, given.num_classes)

    def forward(self, features: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """See the class."""
        logits: Tensor = self.classifier(self.dropout(features))
        for doubling, score, joined in zip(self.doublings, self.scores, finer, strict=True):
            logits = doubling(logits, (joined.shape[-2], joined.shape[-1]), joined) + score(F.relu(joined))
        return logits


def deeplabv3plus_decoder(given: DecoderInputs) -> nn.Module:
    """ASPP, then a low-level feature (Chen et al. 2018)."""
    settings, low_level = given.settings, given.finer[-1]
    return DeepLabV3PlusDecoder(
        given.channels, low_level, given.num_classes, settings.filters, settings.low_level_filters, given.rates,
        settings.dropout, given.norm, given.upsamplers,
    )  # fmt: skip


def aspp_decoder(given: DecoderInputs) -> nn.Module:
    """ASPP at the path's end."""
    filters = given.settings.filters
    head = AsppHead(given.channels, filters, given.rates, given.norm, given.settings.dropout)
    return ScoreDecoder(head, filters, given.num_classes, given.upsamplers)


def classifier_decoder(given: DecoderInputs) -> nn.Module:
    """A 1x1 convolution alone."""
    return ScoreDecoder(nn.Dropout(given.settings.dropout), given.channels, given.num_classes, given.upsamplers)


def two_convs(in_channels: int, filters: int, norm: Norm | None, conv: Conv = ConvNormRelu) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(conv(in_channels, filters, 3, norm), conv(filters, filters, 3, norm))


class AuxiliaryHead(nn.Sequential):
    """3x3 convolution and classifier on a feature inside the network, for training alone (PSPNet, Zhao 2017)."""

    def __init__(self, in_channels: int, num_classes: int, norm: Norm) -> None:
        filters = max(in_channels // 4, 16)
        conv = ConvNormRelu(in_channels, filters, 3, norm)
        super().__init__(conv, nn.Dropout(0.1), nn.Conv2d(filters, num_classes, 1))
