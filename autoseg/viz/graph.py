"""A genotype as graphs for figures, GraphML and DOT: attributes are str, int or float.

The decoder's nodes follow layer L, one a column: `Node(L + 1, ...)` at the level where it begins, then one a doubling.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import networkx as nx

from autoseg.genotype.node_inputs import low_level_node
from autoseg.genotype.schema import Cell, Genotype
from autoseg.registry import BLOCKS, CELL, DECODERS, OPERATIONS
from autoseg.space.cell import PREV, PREV_PREV, state_name
from autoseg.space.resolution import Skip, find_upsampler
from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node

OUTPUT = "output"
CONCAT = "concat"
"""The `operation` of the edges from the blocks to the output of a cell."""

INPUTS = (state_name(PREV_PREV), state_name(PREV))


def short_name(name: str) -> str:
    """Label of an operation, block or upsampler, `sep 3x3` for `sep_conv_3x3`; an unknown name keeps its words."""
    if name in OPERATIONS:
        return OPERATIONS[name].label
    if name in BLOCKS:
        return BLOCKS[name].label
    try:
        return find_upsampler(name).label
    except ValueError:
        return name.replace("_", " ")


def cells(genotype: Genotype) -> dict[str, Cell]:
    """The cells of a genotype by the name of their graph: `cell`, and `up_cell` if the up path has its own.

    It is empty if all stages have other blocks.
    """
    return {name: cell for name, cell in (("cell", genotype.cell), ("up_cell", genotype.up_cell)) if cell}


class StageLabel(NamedTuple):
    """What the nodes of a level hold, in words."""

    level: int
    blocks: str
    """Such as `2 \u00d7 residual`, or `cell`."""
    channels: str


def stage_labels(genotype: Genotype) -> list[StageLabel]:
    """The stages of the levels that have nodes, from fine to coarse; empty if a cell is at every node."""
    used, found = {arrow.target.level for arrow in genotype.arrows}, []
    for level, stage in enumerate(genotype.stages):
        name, filters = short_name(stage.block), str(stage.filters)
        if stage.block == CELL:
            filters = f"{len(genotype.cell)} \u00d7 {filters}"
        elif stage.depth > 1:
            name = f"{stage.depth} \u00d7 {name}"
        found.append(StageLabel(level, name, f"{filters} channels"))
    return [label for label in found if label.level in used]


def cell_graph(genotype: Genotype, name: str = "cell") -> nx.MultiDiGraph[str]:
    """One of the `cells`: nodes `prev_prev`, `prev`, `b1`..`bB` and `output` with `kind`; edges with `operation`.

    It is a MultiDiGraph, since a block may apply two operations to one input.
    """
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=genotype.name)
    cell = cells(genotype)[name]
    graph.add_nodes_from(INPUTS, kind="input")
    for number, block in enumerate(cell):
        state = state_name(number + 2)
        graph.add_node(state, kind="block")
        for edge in block:
            graph.add_edge(edge.input, state, operation=edge.operation)
    graph.add_node(OUTPUT, kind="output")
    for number in range(len(cell)):
        graph.add_edge(state_name(number + 2), OUTPUT, operation=CONCAT)
    return graph


# --- what joins the nodes besides arrows: skip connections and the decoder -------------------------------------------


class Join(NamedTuple):
    """An encoder feature that is added to or concatenated with the features of a later node."""

    source: Node
    target: Node
    how: Skip


def is_plain(genotype: Genotype) -> bool:
    """Whether it is like Auto-DeepLab's networks: a path of cells, bilinear upsampling, its decoder or ASPP."""
    network, decoder = genotype.network, genotype.decoder
    usual_decoder = decoder.name in ("aspp", "deeplabv3plus") and not decoder.upsamplers
    usual_path = genotype.is_path and network.down_layers is None and not network.upsamplers
    return usual_path and usual_decoder and not genotype.stages


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


# --- the whole network ------------------------------------------------------------------------------------------------


def path_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The network level: nodes `stem`, `layer_1`..`layer_L` and `decoder` with `kind`, `stride` and `filters`.

    `filters`: channels of the stem's output, of one block of a layer, or of the decoder; a classifier and FCN's decoder
    have none. `stride`: that of a node's output, and for the decoder that of the layer it reads. The layers of a
    genotype with stages also have `block` and `depth`. Edges have `move`: `up`, `same`, `down`, or `resize` in the
    decoder; and `upsampler` if the genotype names it. Skip connections have `skip`, `add` or `concat`, instead of a
    move. In a network of several paths a node is called `layer_3_stride_8`. The further nodes of a decoder that
    upsamples in steps are called `decoder_stride_4`. Other decoders than Auto-DeepLab's have a `name`.
    """
    graph: nx.DiGraph[str] = nx.DiGraph(name=genotype.name)
    graph.add_node("stem", kind="stem", stride=genotype.stem.stride, filters=genotype.stem.channels[-1])
    names = {STEM_NODE: "stem"}
    for node in sorted({arrow.target for arrow in genotype.arrows}):
        names[node] = f"layer_{node.layer}" + ("" if genotype.is_path else f"_stride_{genotype.stride(node.level)}")
        stages = genotype.stages[node.level : node.level + 1]
        of_stage = {key: value for stage in stages for key, value in (("block", stage.block), ("depth", stage.depth))}
        filters = genotype.filters(node.level)
        graph.add_node(names[node], kind="layer", stride=genotype.stride(node.level), filters=filters, **of_stage)
    upsamplers = up_names(genotype)
    for arrow in genotype.arrows:
        named = {"upsampler": upsamplers[arrow]} if arrow in upsamplers else {}
        graph.add_edge(names[arrow.source], names[arrow.target], move=arrow.move.name.lower(), **named)
    _add_decoder(graph, genotype, names)
    return graph


def _add_decoder(graph: nx.DiGraph[str], genotype: Genotype, names: dict[Node, str]) -> None:
    """Add the decoder's nodes and edges and the skip connections; `names` gets the names of the nodes."""
    first, *later = decoder_nodes(genotype)[: 1 if is_plain(genotype) else None]
    names |= {first: "decoder", **{node: f"decoder_stride_{genotype.stride(node.level)}" for node in later}}
    width = {"filters": genotype.decoder.filters} if DECODERS[genotype.decoder.name].has_filters else {}
    for node in (first, *later):
        graph.add_node(names[node], kind="decoder", stride=genotype.stride(node.level), **width)
    for source in genotype.nodes_at(genotype.layers):
        graph.add_edge(names[source], names[first], move=_move_name(source, first))
    if is_plain(genotype):
        return
    graph.nodes["decoder"]["name"] = genotype.decoder.name
    for source, target, upsampler in enlargements(genotype):
        graph.add_edge(names[source], names[target], move=_move_name(source, target), upsampler=upsampler)
    for source, target, how in joins(genotype):
        graph.add_edge(names[source], names[target], skip=how)


def _move_name(source: Node, target: Node) -> str:
    """`up`, `same` or `down`; `resize` if the move skips a level."""
    change = target.level - source.level
    return Move(change + 1).name.lower() if abs(change) <= 1 else "resize"


def genotype_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The whole genotype for export: `path_graph` beside each `cell_graph`, whose nodes are `cell/...`, `up_cell/...`.

    It is a MultiDiGraph. Path edges have `move` or `skip`, cell edges have `operation`; every node has `kind`.
    """
    parts: dict[str, nx.MultiDiGraph[str]] = {"": nx.MultiDiGraph(path_graph(genotype))}
    parts |= {f"{name}/": cell_graph(genotype, name) for name in cells(genotype)}
    whole: nx.MultiDiGraph[str] = nx.union_all(parts.values(), rename=parts)  # type: ignore[assignment]
    return whole
