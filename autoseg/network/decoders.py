"""The decoder that a genotype names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from autoseg.genotype.node_inputs import JOINING_DECODERS, decoder_nodes, end_nodes
from autoseg.genotype.schema import Genotype
from autoseg.ops.heads import AsppDecoder, ClassifierDecoder, DeepLabV3PlusDecoder, FcnDecoder, UNetDecoder
from autoseg.ops.layers import Norm
from autoseg.space.trellis import Node


def build_decoder(genotype: Genotype, widths: Mapping[Node, int], num_classes: int, norm: Norm) -> nn.Module:
    """The decoder, for nodes whose features have `widths` channels.

    It is called with the end's features after their ReLU and those of `decoder_nodes`.
    """
    spec, classes, dropout = genotype.decoder, num_classes, genotype.decoder.dropout
    channels = sum(widths[node] for node in end_nodes(genotype))
    finer = [widths[node] for node in decoder_nodes(genotype)]
    upsamplers = spec.upsamplers
    if spec.name in JOINING_DECODERS and not upsamplers:
        upsamplers = ("bilinear",) * len(finer)
    rates = [max(1, rate // genotype.stride(genotype.end_level)) for rate in spec.aspp_rates]
    if spec.name == "aspp":
        return AsppDecoder(channels, classes, spec.filters, rates, dropout, norm, upsamplers)
    if spec.name == "deeplabv3plus":
        return DeepLabV3PlusDecoder(
            channels, finer[-1], classes, spec.filters, spec.low_level_filters, rates, dropout, norm, upsamplers
        )
    if spec.name == "unet":
        return UNetDecoder(channels, finer, classes, spec.filters, dropout, norm, upsamplers)
    if spec.name == "fcn":
        return FcnDecoder(channels, finer, classes, dropout, upsamplers)
    return ClassifierDecoder(channels, classes, dropout, upsamplers)
