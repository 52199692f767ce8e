"""A genotype as graphs for figures, GraphML and DOT: attributes are str, int or float."""

from __future__ import annotations

import networkx as nx

from autoseg.genotype.schema import Cell, Genotype
from autoseg.registry import DECODERS, OPERATIONS
from autoseg.space.cell import PREV, PREV_PREV, state_name
from autoseg.space.resolution import find_upsampler
from autoseg.space.trellis import STEM_NODE, Node
from autoseg.viz.wiring import decoder_inputs, decoder_nodes, enlargements, is_plain, joins, move_name, up_names

OUTPUT = "output"
CONCAT = "concat"
"""The `operation` of the edges from the blocks to the output of a cell."""

INPUTS = (state_name(PREV_PREV), state_name(PREV))


def short_name(name: str) -> str:
    """Label of an operation or upsampler, `sep 3x3` for `sep_conv_3x3`; an unknown name keeps its words."""
    if name in OPERATIONS:
        return OPERATIONS[name].label
    try:
        return find_upsampler(name).label
    except ValueError:
        return name.replace("_", " ")


def cells(genotype: Genotype) -> dict[str, Cell]:
    """The cells of a genotype by the name of their graph: `cell`, and `up_cell` if the up path has its own."""
    return {"cell": genotype.cell} | ({"up_cell": genotype.up_cell} if genotype.up_cell is not None else {})


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


def path_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The network level: nodes `stem`, `layer_1`..`layer_L` and `decoder` with `kind`, `stride` and `filters`.

    `filters`: channels of the stem's output, of one block of a layer, or of the decoder; a classifier and FCN's decoder
    have none. `stride`: that of a node's output, and for the decoder that of the layer it reads. Edges have `move`:
    `up`, `same`, `down`, or `resize` in the decoder; and `upsampler` if the genotype names it. Skip connections have
    `skip`, `add` or `concat`, instead of a move. In a network of several paths a node is called `layer_3_stride_8`. The
    further nodes of a decoder that upsamples in steps are called `decoder_stride_4`. Other decoders than Auto-DeepLab's
    have a `name`.
    """
    graph: nx.DiGraph[str] = nx.DiGraph(name=genotype.name)
    graph.add_node("stem", kind="stem", stride=genotype.stem.stride, filters=genotype.stem.channels[-1])
    names = {STEM_NODE: "stem"}
    for node in sorted({arrow.target for arrow in genotype.arrows}):
        names[node] = f"layer_{node.layer}" + ("" if genotype.is_path else f"_stride_{genotype.stride(node.level)}")
        filters = genotype.filters(node.level)
        graph.add_node(names[node], kind="layer", stride=genotype.stride(node.level), filters=filters)
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
    for source, target in decoder_inputs(genotype):
        graph.add_edge(names[source], names[target], move=move_name(source, target))
    if is_plain(genotype):
        return
    graph.nodes["decoder"]["name"] = genotype.decoder.name
    for source, target, upsampler in enlargements(genotype):
        graph.add_edge(names[source], names[target], move=move_name(source, target), upsampler=upsampler)
    for source, target, how in joins(genotype):
        graph.add_edge(names[source], names[target], skip=how)


def genotype_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The whole genotype for export: `path_graph` beside each `cell_graph`, whose nodes are `cell/...`, `up_cell/...`.

    It is a MultiDiGraph. Path edges have `move` or `skip`, cell edges have `operation`; every node has `kind`.
    """
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=genotype.name)
    parts: list[nx.DiGraph[str]] = [path_graph(genotype)]
    for name in cells(genotype):
        cell = cell_graph(genotype, name)
        parts.append(nx.relabel_nodes(cell, {node: f"{name}/{node}" for node in cell}))
    for part in parts:
        graph.add_nodes_from(part.nodes(data=True))
        graph.add_edges_from(part.edges(data=True))
    return graph
