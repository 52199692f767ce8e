"""The decoders of discrete networks, one record each, without torch; `docs/extending.md` says how to add one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.registry import Decoder, DecoderInputs, lazy, register

if TYPE_CHECKING:
    from torch import nn

HEADS = "autoseg.ops.heads"


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
    from autoseg.ops.heads import AsppHead, ScoreDecoder

    filters = given.settings.filters
    head = AsppHead(given.channels, filters, given.rates, given.norm, given.settings.dropout)
    return ScoreDecoder(head, filters, given.num_classes, given.upsamplers)


def _classifier(given: DecoderInputs) -> nn.Module:
    """A 1x1 convolution alone."""
    from torch import nn

    from autoseg.ops.heads import ScoreDecoder

    return ScoreDecoder(nn.Dropout(given.settings.dropout), given.channels, given.num_classes, given.upsamplers)


register(Decoder("deeplabv3plus", "DeepLabv3+", _deeplabv3plus, joins="low_level"))
register(Decoder("aspp", "ASPP", _aspp))
register(Decoder("unet", "U-Net", lazy(HEADS, "UNetDecoder"), joins="encoder"))
register(Decoder("fcn", "FCN", lazy(HEADS, "FcnDecoder"), joins="encoder", how="add", has_filters=False))
register(Decoder("classifier", "classifier", _classifier, has_filters=False))
