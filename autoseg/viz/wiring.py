"""What joins the nodes of a genotype besides its arrows: skip connections, and the decoder as further nodes.

The decoder's nodes follow layer L, one a column: `Node(L + 1, ...)` at the level where the decoder begins, then one for
each doubling.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from autoseg.genotype.node_inputs import low_level_node
from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.space.resolution import Skip
from autoseg.space.trellis import Arrow, Move, Node


class Join(NamedTuple):
    """An encoder feature that is added to or concatenated with the features of a later node."""

    source: Node
    target: Node
    how: Skip


def is_plain(genotype: Genotype) -> bool:
    """Whether it is like Auto-DeepLab's networks: a path, bilinear upsampling, ASPP or DeepLabv3+'s decoder."""
    network, decoder = genotype.network, genotype.decoder
    usual_decoder = decoder.name in ("aspp", "deeplabv3plus") and not decoder.upsamplers
    return genotype.is_path and network.down_layers is None and not network.upsamplers and usual_decoder


def up_names(genotype: Genotype) -> dict[Arrow, str]:
    """The upsampler of each up move; empty if the genotype names none, since all are bilinear."""
    return dict(zip(genotype.up_arrows, genotype.network.upsamplers, strict=False))


def decoder_nodes(genotype: Genotype) -> list[Node]:
    """The nodes of the decoder, from its input to its last features before the image's size."""
    levels = [genotype.end_level, *(level - 1 for level in genotype.decoder_levels)]
    joins = DECODERS[genotype.decoder.name].joins
    if not genotype.decoder.upsamplers and joins != "encoder":  # in one go
        levels = [levels[0]] + levels[1:][-1:] * (joins == "low_level")
    return [Node(genotype.layers + number, level) for number, level in enumerate(levels, start=1)]


def enlargements(genotype: Genotype) -> list[tuple[Node, Node, str]]:
    """Source, target and upsampler of each step between the decoder's nodes."""
    steps = list(pairwise(decoder_nodes(genotype)))
    names = genotype.decoder.upsamplers or ("bilinear",) * len(steps)
    return [(source, target, name) for (source, target), name in zip(steps, names, strict=True)]


def joins(genotype: Genotype) -> list[Join]:
    """Skip connections of the up moves, then those of the decoder."""
    found = [
        Join(genotype.encoder_node(arrow.target.level, arrow.target.layer), arrow.target, genotype.skip(arrow))
        for arrow in genotype.up_arrows
        if genotype.skip(arrow) != "none"
    ]
    nodes, decoder = decoder_nodes(genotype), DECODERS[genotype.decoder.name]
    if decoder.joins == "encoder":
        end = genotype.layers + 1
        return found + [Join(genotype.encoder_node(node.level, end), node, decoder.how) for node in nodes[1:]]
    if decoder.joins == "low_level":
        return [*found, Join(low_level_node(genotype), nodes[-1], decoder.how)]
    return found


def decoder_inputs(genotype: Genotype) -> list[tuple[Node, Node]]:
    """Edges from the nodes of the last layer, whose features the decoder reads, to the decoder."""
    first = decoder_nodes(genotype)[0]
    return [(node, first) for node in genotype.nodes_at(genotype.layers)]


def move_name(source: Node, target: Node) -> str:
    """`up`, `same` or `down`; `resize` if the move skips a level."""
    change = target.level - source.level
    return Move(change + 1).name.lower() if abs(change) <= 1 else "resize"
