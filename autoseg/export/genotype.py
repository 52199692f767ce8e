"""A genotype as a file for other programs: JSON to load again, GraphML for graph tools, DOT for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import networkx as nx

from autoseg.errors import ExportError
from autoseg.export.common import check_target
from autoseg.files import one_line, write_atomically
from autoseg.genotype.schema import Genotype
from autoseg.registry import DECODERS
from autoseg.viz.graph import CONCAT, cell_graph, cells, genotype_graph, path_graph, short_name

GenotypeFormat = Literal["json", "graphml", "dot"]
GENOTYPE_FORMATS: tuple[str, ...] = get_args(GenotypeFormat)


def export_genotype(genotype: Genotype, path: str | Path, format: GenotypeFormat, overwrite: bool = False) -> Path:
    """Write the genotype atomically; returns its path. Raises: ExportError: unknown format, file not writable."""
    target = check_target(path, format, GENOTYPE_FORMATS, "genotype", overwrite)

    if format == "json":
        genotype.save(target, "json")
        return target

    def write(temporary: Path) -> None:
        if format == "dot":
            temporary.write_text(to_dot(genotype), encoding="utf-8")
        else:
            graph = genotype_graph(genotype)
            graph.graph["name"] = _printable(genotype.name)
            nx.write_graphml_xml(graph, temporary)

    try:
        write_atomically(target, write)
    except ValueError as reason:
        raise ExportError(f"{target} cannot be written ({one_line(reason)})", code="file-unwritable") from reason
    return target


def _printable(name: str) -> str:
    """A name without line breaks and control characters, which neither XML nor DOT can hold."""
    return "".join(filter(str.isprintable, name))


# --- DOT -------------------------------------------------------------------------------------------------------------

_ENDS = "#E8E8E8"
_FILL = {"layer": "#D6E6F2", "block": "#FBE3C0"}
"""Layers and blocks have a colour; the nodes before and after them are grey."""


def to_dot(genotype: Genotype) -> str:
    """The path and each cell as clusters in Graphviz's language."""
    name, both = _printable(genotype.name), genotype.up_cell is not None
    lines = [
        f"digraph {_quote(name)} {{",
        "  ranksep=0.4; fontname=Helvetica; fontsize=12; color=gray;",
        '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11, color=gray];',
        "  edge [fontname=Helvetica, fontsize=10];",
        *_cluster("path", f"path of {name}" if genotype.is_path else f"paths of {name}", path_graph(genotype)),
    ]
    for cell, where in zip(cells(genotype), (" of the way down" if both else "", " of the way up"), strict=False):
        graph = cell_graph(genotype, cell)
        layers = "layer" if not genotype.stages else "layer that has it"
        lines.extend(_cluster(cell, f"cell of {name}, the same in every {layers}{where}", graph))
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(name: str, label: str, graph: nx.DiGraph[str]) -> Iterator[str]:
    """The lines of one graph; the prefix `name/` keeps nodes of different clusters apart."""
    yield f"  subgraph cluster_{name} {{"
    yield f"    label={_quote(label)};"
    for node, attributes in graph.nodes(data=True):
        yield (
            f"    {_quote(f'{name}/{node}')} [label={_quote(_node_label(node, attributes))},"
            f" fillcolor={_quote(_FILL.get(attributes['kind'], _ENDS))}];"
        )
    for source, target, attributes in graph.edges(data=True):
        yield f"    {_quote(f'{name}/{source}')} -> {_quote(f'{name}/{target}')} [{_edge_style(attributes)}];"
    yield "  }"


def _node_label(node: str, attributes: Mapping[str, Any]) -> str:
    if "stride" not in attributes:
        return node
    title = node.split("_stride_")[0].replace("_", " ")
    if "name" in attributes:
        title += f", {DECODERS[attributes['name']].label}"
    filters = f", {attributes['filters']} filters" if "filters" in attributes else ""
    times = f"{attributes['depth']} x " if attributes.get("depth", 1) > 1 else ""
    stage = f"\n{times}{short_name(attributes['block'])}" if "block" in attributes else ""
    return f"{title}\nstride {attributes['stride']}{filters}{stage}"


def _edge_style(attributes: Mapping[str, Any]) -> str:
    """An operation, or a move with its upsampler, is the label; `same` and a cell's concatenation need none.

    Skip connections have a colour and do not pull their ends together; an added one is dashed.
    """
    if "skip" in attributes:
        line = "dashed" if attributes["skip"] == "add" else "solid"
        return f'label={_quote(attributes["skip"])}, style={line}, color="#009E73", constraint=false'
    operation = attributes.get("operation")
    if operation == CONCAT:
        return "style=dashed, color=gray"
    if operation is not None:
        return f"label={_quote(short_name(operation))}"
    words = [attributes["move"].replace("same", ""), short_name(attributes.get("upsampler", ""))]
    return f"label={_quote(chr(10).join(filter(None, words)))}"


def _quote(text: str) -> str:
    """A quoted string of DOT; a line break becomes an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
