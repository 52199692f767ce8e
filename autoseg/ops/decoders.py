"""The decoders of discrete networks, one record each. This file loads without torch.

To add one, write its record here, with a builder that puts layers together or imports a class, or in a file of your own
(`docs/extending.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.registry import Decoder, DecoderInputs, register

if TYPE_CHECKING:
    from torch import nn


def _deeplabv3plus(given: DecoderInputs) -> nn.Module:
    """ASPP, then a low-level feature (Chen et al. 2018)."""
    from autoseg.ops.heads import DeepLabV3PlusDecoder

    settings, low_level = given.settings, given.finer[-1]
    return DeepLabV3PlusDecoder(
        given.channels, low_level, given.num_classes, settings.filters, settings.low_level_filters, given.rates,
        settings.dropout, given.norm, given.upsamplers,
    )  # fmt: skip


def _aspp(given: DecoderInputs) -> nn.Module:
    """ASPP at the path's end."""
    from autoseg.ops.heads import AsppDecoder

    rest = (given.rates, given.settings.dropout, given.norm, given.upsamplers)
    return AsppDecoder(given.channels, given.num_classes, given.settings.filters, *rest)


def _unet(given: DecoderInputs) -> nn.Module:
    """Doublings, each joined by the encoder feature (Ronneberger et al. 2015)."""
    from autoseg.ops.heads import UNetDecoder

    rest = (given.settings.filters, given.settings.dropout, given.norm, given.upsamplers)
    return UNetDecoder(given.channels, given.finer, given.num_classes, *rest)


def _fcn(given: DecoderInputs) -> nn.Module:
    """Score maps of the encoder's strides, summed from coarse to fine (Long et al. 2015)."""
    from autoseg.ops.heads import FcnDecoder

    return FcnDecoder(given.channels, given.finer, given.num_classes, given.settings.dropout, given.upsamplers)


def _classifier(given: DecoderInputs) -> nn.Module:
    """A 1x1 convolution alone."""
    from autoseg.ops.heads import ClassifierDecoder

    return ClassifierDecoder(given.channels, given.num_classes, given.settings.dropout, given.upsamplers)


register(Decoder("deeplabv3plus", "DeepLabv3+", _deeplabv3plus, joins="low_level"))
register(Decoder("aspp", "ASPP", _aspp))
register(Decoder("unet", "U-Net", _unet, joins="encoder"))
register(Decoder("fcn", "FCN", _fcn, joins="encoder", how="add", has_filters=False))
register(Decoder("classifier", "classifier", _classifier, has_filters=False))
