"""The decoder that a genotype names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from autoseg.genotype.node_inputs import decoder_nodes, end_nodes
from autoseg.genotype.schema import Genotype
from autoseg.ops.layers import Norm
from autoseg.registry import DECODERS, DecoderInputs
from autoseg.space.trellis import Node


def build_decoder(genotype: Genotype, widths: Mapping[Node, int], num_classes: int, norm: Norm) -> nn.Module:
    """The genotype's decoder. widths: channels of each node's features.

    Call it with the end's features after their ReLU and those of `decoder_nodes`.
    """
    spec, record = genotype.decoder, DECODERS[genotype.decoder.name]
    finer = [widths[node] for node in decoder_nodes(genotype)]
    upsamplers = spec.upsamplers
    if record.joins == "encoder" and not upsamplers:
        upsamplers = ("bilinear",) * len(finer)
    channels = sum(widths[node] for node in end_nodes(genotype))
    rates = [max(1, rate // genotype.stride(genotype.end_level)) for rate in spec.aspp_rates]
    decoder: nn.Module = record.build(DecoderInputs(channels, finer, num_classes, spec, rates, norm, upsamplers))
    return decoder
