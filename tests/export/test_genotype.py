"""Genotypes as JSON, GraphML and DOT."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from helpers.errors import raises_code
from helpers.genotypes import down_to_8, hourglass, several_paths

from autoseg.errors import ExportError
from autoseg.export import GENOTYPE_FORMATS, export_genotype
from autoseg.genotype.schema import Genotype
from autoseg.viz.graph import cell_graph, genotype_graph, path_graph

NAMES = ("auto_deeplab_s", "auto_deeplab_m", "auto_deeplab_l")


@pytest.fixture(params=NAMES)
def genotype(request: pytest.FixtureRequest) -> Genotype:
    return Genotype.load(request.param)


def test_json_loads_back(genotype: Genotype, tmp_path: Path) -> None:
    path = export_genotype(genotype, str(tmp_path / "g.json"), "json")
    assert path == tmp_path / "g.json"
    assert Genotype.load(path) == genotype


def test_graphml_has_every_node_edge_and_attribute(genotype: Genotype, tmp_path: Path) -> None:
    read = nx.read_graphml(export_genotype(genotype, tmp_path / "g.graphml", "graphml"), force_multigraph=True)
    graph = genotype_graph(genotype)
    assert read.is_directed()
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert read.nodes["layer_1"]["stride"] == genotype.network.strides[0]

    def edges(of: Any) -> list[tuple[str, str, str, str]]:
        return sorted((a, b, d.get("operation", ""), d.get("move", "")) for a, b, d in of.edges(data=True))

    assert edges(read) == edges(graph)
    assert len(edges(read)) == sum(map(len, genotype.cell)) + len(genotype.cell) + len(genotype.network.strides) + 1


def test_dot_has_both_graphs_as_clusters(genotype: Genotype, tmp_path: Path) -> None:
    text = export_genotype(genotype, tmp_path / "g.dot", "dot").read_text()
    assert text.startswith(f'digraph "{genotype.name}" {{\n')
    for cluster, graph in (("path", path_graph(genotype)), ("cell", cell_graph(genotype))):
        assert text.count(f"subgraph cluster_{cluster} {{") == 1
        nodes = re.findall(rf'^    "{cluster}/(\w+)" \[label=', text, re.MULTILINE)
        assert sorted(nodes) == sorted(graph.nodes)
        edges = re.findall(rf'^    "{cluster}/(\w+)" -> "{cluster}/(\w+)" \[', text, re.MULTILINE)
        assert sorted(edges) == sorted(graph.edges())
    assert r'"path/layer_1" [label="layer 1\nstride 4, ' in text
    assert '[label="down"]' in text
    assert '[label="sep 3x3"]' in text


def test_dot_quotes_names(tmp_path: Path) -> None:
    genotype = Genotype.load("auto_deeplab_s").model_copy(update={"name": 'a "b" \\ c'})
    text = export_genotype(genotype, tmp_path / "g.dot", "dot").read_text()
    assert text.startswith('digraph "a \\"b\\" \\\\ c" {')


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
@pytest.mark.parametrize("name", ["auto_deeplab_s", 'a "b" \\ c\\', "Straße <b>{x}</b>", "a\x00\nb"])
def test_graphviz_draws_it(name: str, tmp_path: Path) -> None:
    genotype = Genotype.load("auto_deeplab_s").model_copy(update={"name": name})
    path = export_genotype(genotype, tmp_path / "g.dot", "dot")
    done = subprocess.run(["dot", "-Tsvg", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count('class="node"') == len(genotype_graph(genotype).nodes)
    assert done.stdout.count('class="edge"') == len(genotype_graph(genotype).edges)
    assert done.stdout.count('class="cluster"') == 2


@pytest.mark.parametrize("format", GENOTYPE_FORMATS)
def test_a_file_that_exists_is_kept_unless_overwritten(format: Any, genotype: Genotype, tmp_path: Path) -> None:
    path = tmp_path / "g"
    path.write_text("precious")
    with raises_code(ExportError, "file-exists", path):
        export_genotype(genotype, path, format)
    assert path.read_text() == "precious"
    assert export_genotype(genotype, path, format, overwrite=True) == path
    assert path.read_text() != "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_format_lists_the_known(genotype: Genotype, tmp_path: Path) -> None:
    with raises_code(ExportError, "unknown-format", "'onnx'", "genotype", "json, graphml, dot"):
        export_genotype(genotype, tmp_path / "g", "onnx")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_names_that_xml_cannot_hold(tmp_path: Path) -> None:
    genotype = Genotype.load("auto_deeplab_s").model_copy(update={"name": "a\x00<&>"})
    path = export_genotype(genotype, tmp_path / "g", "graphml")
    assert nx.read_graphml(path, force_multigraph=True).number_of_nodes() == genotype_graph(genotype).number_of_nodes()


# --- what comes back up -----------------------------------------------------------------------------------------------

UPSAMPLED = {
    "hourglass": hourglass(),
    "several paths": several_paths(upsamplers=["dysample"]),
    "unet": down_to_8("unet", ["pixel_dcl", "carafe"]),
    "fcn": down_to_8("fcn"),
}


@pytest.mark.parametrize("name", UPSAMPLED)
def test_json_of_a_genotype_with_upsamplers_loads_back(name: str, tmp_path: Path) -> None:
    path = export_genotype(UPSAMPLED[name], tmp_path / "g.json", "json")
    assert Genotype.load(path) == UPSAMPLED[name]


@pytest.mark.parametrize("name", UPSAMPLED)
def test_graphml_of_a_genotype_with_upsamplers(name: str, tmp_path: Path) -> None:
    graph = genotype_graph(UPSAMPLED[name])
    read = nx.read_graphml(export_genotype(UPSAMPLED[name], tmp_path / "g", "graphml"), force_multigraph=True)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))

    def edges(of: Any) -> list[tuple[str, str, list[tuple[str, str]]]]:
        return sorted((a, b, sorted(data.items())) for a, b, data in of.edges(data=True))

    assert edges(read) == edges(graph)


def test_graphml_of_an_hourglass_has_its_skips_and_both_cells(tmp_path: Path) -> None:
    read = nx.read_graphml(export_genotype(hourglass(), tmp_path / "g", "graphml"), force_multigraph=True)
    skips = {(a, b): how for a, b, how in read.edges(data="skip") if how}
    assert skips == {("layer_1", "layer_4"): "add", ("stem", "layer_5"): "concat"}
    assert {a: name for a, _, name in read.edges(data="upsampler") if name} == {
        "layer_3": "pixel_dcl_5x5",
        "layer_4": "carafe",
    }
    assert {"cell/b1", "up_cell/b1", "up_cell/b2"} <= set(read)


def test_dot_of_an_hourglass(tmp_path: Path) -> None:
    text = export_genotype(hourglass(), tmp_path / "g.dot", "dot").read_text()
    assert text.count("subgraph cluster_") == 3
    assert 'label="cell of small, the same in every layer of the way up"' in text
    assert r'"path/layer_3" -> "path/layer_4" [label="up\nPixelDCL 5x5"]' in text
    assert '"path/layer_1" -> "path/layer_4" [label="add", style=dashed' in text
    assert '"path/stem" -> "path/layer_5" [label="concat", style=solid' in text
    assert r'"path/decoder" [label="decoder, classifier\nstride 2"' in text
    assert '"up_cell/b1" -> "up_cell/b2" [label="sep 5x5"]' in text


def test_dot_of_several_paths(tmp_path: Path) -> None:
    text = export_genotype(UPSAMPLED["several paths"], tmp_path / "g.dot", "dot").read_text()
    assert 'label="paths of small"' in text
    assert r'"path/layer_2_stride_4" [label="layer 2\nstride 4, 8 filters"' in text
    assert r'"path/layer_1_stride_4" -> "path/layer_2_stride_2" [label="up\nDySample"]' in text
    assert '"path/layer_3_stride_4" -> "path/decoder" [label="up"]' in text


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
@pytest.mark.parametrize("name", UPSAMPLED)
def test_graphviz_draws_what_comes_back_up(name: str, tmp_path: Path) -> None:
    path = export_genotype(UPSAMPLED[name], tmp_path / "g.dot", "dot")
    done = subprocess.run(["dot", "-Tsvg", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count('class="edge"') == len(genotype_graph(UPSAMPLED[name]).edges)
