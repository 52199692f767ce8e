"""A genotype as a file for other programs: JSON to load again, GraphML for graph tools, DOT for Graphviz."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import networkx as nx

from autoseg.errors import ExportError
from autoseg.export.target import check_target
from autoseg.files import one_line, write_atomically
from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import CONCAT, cell_graph, genotype_graph, path_graph, short_name

GenotypeFormat = Literal["json", "graphml", "dot"]


def export_genotype(genotype: Genotype, path: str | Path, format: GenotypeFormat, overwrite: bool = False) -> Path:
    """Write the genotype atomically; returns the path. `Genotype.load` reads the JSON again.

    Raises: ExportError: an unknown format, or a file that exists or cannot be written.
    """
    target = check_target(path, format, GENOTYPE_FORMATS, "genotype", overwrite)
    try:
        write_atomically(target, lambda temporary: _FORMATS[format](genotype, temporary))
    except (OSError, ValueError) as reason:
        raise ExportError(f"{target} cannot be written ({one_line(reason)})") from reason
    return target


def _save_json(genotype: Genotype, path: Path) -> None:
    genotype.save(path, "json")


def _save_graphml(genotype: Genotype, path: Path) -> None:
    graph = genotype_graph(genotype)
    graph.graph["name"] = _printable(genotype.name)
    nx.write_graphml_xml(graph, path)


def _printable(name: str) -> str:
    """A name without line breaks and control characters, which neither XML nor DOT can hold."""
    return "".join(character for character in name if character.isprintable())


def _save_dot(genotype: Genotype, path: Path) -> None:
    path.write_text(to_dot(genotype), encoding="utf-8")


_FORMATS: dict[str, Callable[[Genotype, Path], None]] = {
    "json": _save_json,
    "graphml": _save_graphml,
    "dot": _save_dot,
}
GENOTYPE_FORMATS = tuple(_FORMATS)


# --- DOT -------------------------------------------------------------------------------------------------------------

_ENDS = "#E8E8E8"
_FILL = {"layer": "#D6E6F2", "block": "#FBE3C0"}
"""Layers and blocks have a colour; what comes before and after them is grey."""


def to_dot(genotype: Genotype) -> str:
    """The path and the cell, as two clusters, in Graphviz's language."""
    name = _printable(genotype.name)
    lines = [
        f"digraph {_quote(name)} {{",
        "  ranksep=0.4; fontname=Helvetica; fontsize=12; color=gray;",
        '  node [shape=box, style="rounded,filled", fontname=Helvetica, fontsize=11, color=gray];',
        "  edge [fontname=Helvetica, fontsize=10];",
        *_cluster("path", f"path of {name}", path_graph(genotype)),
        *_cluster("cell", f"cell of {name}, the same in every layer", cell_graph(genotype)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _cluster(name: str, label: str, graph: nx.DiGraph[str]) -> Iterator[str]:
    """The lines of one graph; its nodes are called `name/...`, so that no two clusters share one."""
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
    return f"{node.replace('_', ' ')}\nstride {attributes['stride']}, {attributes['filters']} filters"


def _edge_style(attributes: Mapping[str, Any]) -> str:
    """An operation or a move as label; `same` and the concatenation need none."""
    operation = attributes.get("operation")
    if operation == CONCAT:
        return "style=dashed, color=gray"
    label = attributes["move"].replace("same", "") if operation is None else short_name(operation)
    return f"label={_quote(label)}"


def _quote(text: str) -> str:
    """A quoted string of DOT; a line break is written as an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
