"""The decoders of discrete networks, one record each, without torch; `docs/extending.md` says how to add one."""

from __future__ import annotations

from autoseg.registry import Decoder, lazy, register

HEADS = "autoseg.ops.heads"

register(Decoder("deeplabv3plus", "DeepLabv3+", lazy(HEADS, "deeplabv3plus_decoder"), joins="low_level"))
register(Decoder("aspp", "ASPP", lazy(HEADS, "aspp_decoder")))
register(Decoder("unet", "U-Net", lazy(HEADS, "UNetDecoder"), joins="encoder"))
register(Decoder("fcn", "FCN", lazy(HEADS, "FcnDecoder"), joins="encoder", how="add", has_filters=False))
register(Decoder("classifier", "classifier", lazy(HEADS, "classifier_decoder"), has_filters=False))
