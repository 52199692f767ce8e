"""A genotype as graphs: what is drawn, and what GraphML and DOT can hold (attributes are str, int or float)."""

from __future__ import annotations

import networkx as nx

from autoseg.genotype.schema import Genotype
from autoseg.space.cell import PREV, PREV_PREV, state_name

OUTPUT = "output"
CONCAT = "concat"
"""The `operation` of the edges from the blocks to the output of the cell."""

INPUTS = (state_name(PREV_PREV), state_name(PREV))

_SHORT = {
    "skip_connect": "skip",
    "sep_conv": "sep",
    "atrous_conv": "atrous",
    "dil_conv": "dil",
    "avg_pool": "avg pool",
    "max_pool": "max pool",
}


def short_name(operation: str) -> str:
    """`sep_conv_3x3` as `sep 3x3`, for labels; an operation that is not known keeps its words."""
    for long, short in _SHORT.items():
        if operation == long or operation.startswith(f"{long}_"):
            return (short + operation.removeprefix(long)).replace("_", " ")
    return operation.replace("_", " ")


def cell_graph(genotype: Genotype) -> nx.MultiDiGraph[str]:
    """The cell: nodes `prev_prev`, `prev`, `b1`..`bB` and `output` with `kind`; edges with `operation`.

    A MultiDiGraph, since a block may apply two operations to one input.
    """
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=genotype.name)
    graph.add_nodes_from(INPUTS, kind="input")
    for number, block in enumerate(genotype.cell):
        name = state_name(number + 2)
        graph.add_node(name, kind="block")
        for edge in block:
            graph.add_edge(edge.input, name, operation=edge.operation)
    graph.add_node(OUTPUT, kind="output")
    for number in range(len(genotype.cell)):
        graph.add_edge(state_name(number + 2), OUTPUT, operation=CONCAT)
    return graph


def path_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The path: nodes `stem`, `layer_1`..`layer_L` and `decoder` with `kind`, `stride` and `filters`.

    `filters` are the stem's last channels, those of one block of a layer, and the decoder's; `stride` is that of a
    node's output, and for the decoder that of the layer it reads. Edges have `move`: `up`, `same` or `down` (`same`
    into the decoder).
    """
    graph: nx.DiGraph[str] = nx.DiGraph(name=genotype.name)
    graph.add_node("stem", kind="stem", stride=genotype.stem.stride, filters=genotype.stem.channels[-1])
    before = "stem"
    for layer, (stride, move) in enumerate(zip(genotype.network.strides, genotype.moves, strict=True), start=1):
        graph.add_node(
            f"layer_{layer}", kind="layer", stride=stride, filters=genotype.filters(genotype.levels[layer - 1])
        )
        graph.add_edge(before, f"layer_{layer}", move=move.name.lower())
        before = f"layer_{layer}"
    decoder = genotype.decoder
    graph.add_node("decoder", kind="decoder", stride=genotype.network.strides[-1], filters=decoder.filters)
    graph.add_edge(before, "decoder", move="same")
    return graph


def genotype_graph(genotype: Genotype) -> nx.DiGraph[str]:
    """The whole genotype for export: `path_graph` beside `cell_graph`, whose nodes are called `cell/...` here.

    It is a MultiDiGraph (a kind of DiGraph). Path edges have `move`, cell edges `operation`; every node has `kind`.
    """
    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=genotype.name)
    path = path_graph(genotype)
    cell: nx.MultiDiGraph[str] = nx.relabel_nodes(
        cell_graph(genotype), {node: f"cell/{node}" for node in cell_names(genotype)}
    )
    for part in (path, cell):
        graph.add_nodes_from(part.nodes(data=True))
        graph.add_edges_from(part.edges(data=True))
    return graph


def cell_names(genotype: Genotype) -> tuple[str, ...]:
    """The nodes of `cell_graph`, inputs first, output last."""
    return (*(state_name(state) for state in range(len(genotype.cell) + 2)), OUTPUT)
