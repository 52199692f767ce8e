"""The inputs of each node of a network: plain facts about a genotype, without torch."""

from __future__ import annotations

from typing import NamedTuple

from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Arrow, Move, Node, nearest_level


class NodeInputs(NamedTuple):
    """The inputs of the cell of a node."""

    node: Node
    arrows: tuple[Arrow, ...]
    """From nodes of the layer before it, whose features are its H(l-1)."""
    prev_prev: Node
    """H(l-2): of the nodes that stay two layers ago, that of the nearest level, the finer of equals."""
    encoder_node: Node | None
    """The encoder node at this level. An up move's skip joins its feature, which may also guide the upsampler."""


def node_inputs(genotype: Genotype) -> list[NodeInputs]:
    """The inputs of every node that holds a cell, by layer, then by level."""
    return [
        _node_inputs(genotype, node) for layer in range(1, genotype.layers + 1) for node in genotype.nodes_at(layer)
    ]  # fmt: skip


def _node_inputs(genotype: Genotype, node: Node) -> NodeInputs:
    arrows = tuple(arrow for arrow in genotype.arrows if arrow.target == node)
    guided = any(arrow.move is Move.UP and not is_plain(genotype, arrow) for arrow in arrows)
    return NodeInputs(
        node, arrows, _prev_prev(genotype, node), genotype.encoder_node(node.level, node.layer) if guided else None
    )


def is_plain(genotype: Genotype, arrow: Arrow) -> bool:
    """Whether an up move is Auto-DeepLab's: resized bilinearly, and nothing joins."""
    return genotype.upsampler(arrow) == "bilinear" and genotype.skip(arrow) == "none"


def _prev_prev(genotype: Genotype, node: Node) -> Node:
    if node.layer <= 2:
        return (FIRST_STEM_NODE, STEM_NODE)[node.layer - 1]
    layer = node.layer - 2
    return Node(layer, nearest_level(node.level, (other.level for other in genotype.nodes_at(layer))))


def end_nodes(genotype: Genotype) -> list[Node]:
    """Those that the decoder begins with: of the last layer, the finest first."""
    return genotype.nodes_at(genotype.layers)


def decoder_nodes(genotype: Genotype) -> list[Node]:
    """The further nodes that the decoder reads, one a doubling, from coarse to fine: the last at that stride.

    It joins there, guides an upsampler, or gives the size alone. The last one is the low-level feature of a decoder
    that joins it. Empty where a decoder resizes in one go.
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
