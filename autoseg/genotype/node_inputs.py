"""The inputs of each node of a network: plain facts about a genotype, without torch."""

from __future__ import annotations

from typing import NamedTuple

from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node, prev_prev_of


class NodeInputs(NamedTuple):
    """The inputs of the cell of a node."""

    node: Node
    arrows: tuple[Arrow, ...]  # from the layer before it; their features are its H(l-1)
    prev_prev: Node  # H(l-2): two layers ago at the nearest level; a tie goes to the finer level
    encoder_node: Node | None
    """The encoder node at this level. An up move's skip joins its feature, which may also guide the upsampler."""


def node_inputs(genotype: Genotype) -> list[NodeInputs]:
    """The inputs of every node that holds a cell, by layer, then by level."""
    found = []
    for node in [node for layer in range(1, genotype.layers + 1) for node in genotype.nodes_at(layer)]:
        arrows = tuple(arrow for arrow in genotype.arrows if arrow.target == node)
        guided = any(arrow.move is Move.UP and not is_plain(genotype, arrow) for arrow in arrows)
        encoder_node = genotype.encoder_node(node.level, node.layer) if guided else None
        found.append(NodeInputs(node, arrows, prev_prev_of(node, genotype.nodes_at), encoder_node))
    return found


def is_plain(genotype: Genotype, arrow: Arrow) -> bool:
    """Whether an up move is Auto-DeepLab's: a bilinear resize without a skip."""
    return genotype.upsampler(arrow) == "bilinear" and genotype.skip(arrow) == "none"


def decoder_nodes(genotype: Genotype) -> list[Node]:
    """The further nodes that the decoder reads: the encoder's node at each doubling, from coarse to fine.

    Its feature joins, guides an upsampler, or only gives the size. In a decoder with a low-level feature, the last one
    is that. Empty if the decoder resizes in one step.
    """
    end, joins = genotype.layers + 1, DECODERS[genotype.decoder.name].joins
    staged = genotype.decoder.upsamplers or joins == "encoder"
    nodes = [genotype.encoder_node(level - 1, end) for level in genotype.decoder_levels] if staged else []
    return [*nodes[:-1], low_level_node(genotype)] if joins == "low_level" else nodes


def low_level_node(genotype: Genotype) -> Node:
    """The node of the decoder's low-level feature: the last at the low-level stride, else the stem."""
    stride = genotype.decoder.low_level_stride
    at_stride = [arrow.target for arrow in genotype.arrows if genotype.stride(arrow.target.level) == stride]
    return max(at_stride, default=STEM_NODE)


def auxiliary_node(genotype: Genotype) -> Node:
    """The node of the auxiliary head: after two thirds of the layers, the finest."""
    return genotype.nodes_at(max(1, round(genotype.layers * 2 / 3)))[0]
