"""Skip connections and decoders of genotypes, and the graphs that hold them."""

from __future__ import annotations

import networkx as nx
import pytest
from helpers.genotypes import down_to_8, genotype, hourglass, several_paths

from autoseg.genotype.schema import Genotype
from autoseg.space.trellis import Node
from autoseg.viz.graph import (
    Join,
    cell_graph,
    decoder_nodes,
    enlargements,
    genotype_graph,
    is_plain,
    joins,
    path_graph,
    short_name,
)


@pytest.mark.parametrize("name", ["auto_deeplab_s", "auto_deeplab_m", "auto_deeplab_l"])
def test_published_networks_are_plain(name: str) -> None:
    assert is_plain(Genotype.load(name))


def test_what_is_not_plain() -> None:
    assert is_plain(down_to_8("aspp"))
    for other in (hourglass(), several_paths(), down_to_8("unet"), down_to_8("aspp", ["carafe", "carafe"])):
        assert not is_plain(other)
    assert not is_plain(genotype({"strides": [4, 2], "upsamplers": ["bilinear"]}))


def test_skips_come_from_where_the_way_down_left_the_stride() -> None:
    assert joins(hourglass()) == [Join(Node(1, 1), Node(4, 1), "add"), Join(Node(0, 0), Node(5, 0), "concat")]
    without = genotype({"strides": [4, 8, 4, 2], "down_layers": 2, "skips": ["none", "concat"]}, {"name": "classifier"})
    assert joins(without) == [Join(Node(0, 0), Node(4, 0), "concat")]


@pytest.mark.parametrize(
    ("decoder", "upsamplers", "levels", "joined"),
    [
        ("aspp", [], [2], []),
        ("classifier", [], [2], []),
        ("aspp", ["carafe", "nearest"], [2, 1, 0], []),
        ("deeplabv3plus", [], [2, 0], [(Node(1, 0), 0, "concat")]),
        ("deeplabv3plus", ["carafe", "nearest"], [2, 1, 0], [(Node(1, 0), 0, "concat")]),
        ("unet", [], [2, 1, 0], [(Node(3, 1), 1, "concat"), (Node(1, 0), 0, "concat")]),
        ("fcn", ["carafe", "nearest"], [2, 1, 0], [(Node(3, 1), 1, "add"), (Node(1, 0), 0, "add")]),
    ],
)
def test_decoders(decoder: str, upsamplers: list[str], levels: list[int], joined: list[tuple[Node, int, str]]) -> None:
    found = down_to_8(decoder, upsamplers)
    nodes = decoder_nodes(found)
    assert nodes == [Node(5 + number, level) for number, level in enumerate(levels)]
    names = upsamplers or ["bilinear"] * (len(levels) - 1)
    assert [upsampler for _, _, upsampler in enlargements(found)] == names
    assert [(join.source, join.target.level, join.how) for join in joins(found)] == joined


def test_a_path_that_ends_at_the_low_level_stride() -> None:
    found = genotype({"strides": [4, 2], "upsamplers": ["carafe"]}, {"name": "deeplabv3plus"})
    assert decoder_nodes(found) == [Node(3, 0)]
    assert joins(found) == [Join(Node(2, 0), Node(3, 0), "concat")]


# --- graphs ---------------------------------------------------------------------------------------------------------


def test_graph_of_an_hourglass() -> None:
    graph = path_graph(hourglass())
    assert graph.edges["layer_3", "layer_4"] == {"move": "up", "upsampler": "pixel_dcl_5x5"}
    assert graph.edges["layer_4", "layer_5"] == {"move": "up", "upsampler": "carafe"}
    assert graph.edges["layer_1", "layer_2"] == {"move": "down"}
    assert graph.edges["layer_1", "layer_4"] == {"skip": "add"}
    assert graph.edges["stem", "layer_5"] == {"skip": "concat"}
    assert graph.nodes["decoder"] == {"kind": "decoder", "stride": 2, "name": "classifier"}
    assert graph.number_of_edges() == 5 + 2 + 1


def test_graph_of_several_paths() -> None:
    found = several_paths(upsamplers=["dysample"])
    graph = path_graph(found)
    nodes = ["stem", "layer_1_stride_2", "layer_1_stride_4", "layer_2_stride_2", "layer_2_stride_4"]
    assert list(graph) == [*nodes, "layer_3_stride_2", "layer_3_stride_4", "decoder"]
    assert graph.nodes["layer_3_stride_4"] == {"kind": "layer", "stride": 4, "filters": 8}
    assert graph.edges["layer_1_stride_4", "layer_2_stride_2"] == {"move": "up", "upsampler": "dysample"}
    assert sorted(graph.predecessors("layer_3_stride_4")) == ["layer_2_stride_2", "layer_2_stride_4"]
    into = {source: data["move"] for source, _, data in graph.in_edges("decoder", data=True) if "move" in data}
    assert into == {"layer_3_stride_2": "same", "layer_3_stride_4": "up"}
    assert nx.is_directed_acyclic_graph(graph)


def test_graph_of_a_decoder_in_steps() -> None:
    graph = path_graph(down_to_8("unet", ["pixel_dcl", "bilinear"]))
    assert graph.nodes["decoder"] == {"kind": "decoder", "stride": 8, "filters": 16, "name": "unet"}
    assert graph.nodes["decoder_stride_2"]["stride"] == 2
    assert graph.edges["decoder", "decoder_stride_4"] == {"move": "up", "upsampler": "pixel_dcl"}
    assert graph.edges["layer_3", "decoder_stride_4"] == {"skip": "concat"}
    assert graph.edges["layer_1", "decoder_stride_2"] == {"skip": "concat"}


def test_the_cell_of_the_way_up_is_a_graph_of_its_own() -> None:
    found = hourglass()
    graph = cell_graph(found, "up_cell")
    assert tuple(graph) == ("prev_prev", "prev", "b1", "b2", "output")
    operations = [data for *_, data in nx.MultiDiGraph(graph).edges(data="operation") if data != "concat"]
    assert operations == ["max_pool_3x3", "sep_conv_5x5"]
    whole = genotype_graph(found)
    assert whole.number_of_nodes() == len(path_graph(found)) + len(cell_graph(found)) + len(graph)
    assert whole.has_edge("up_cell/b1", "up_cell/b2")
    assert "cell/b2" not in whole


@pytest.mark.parametrize(
    ("upsampler", "label"),
    [
        ("transposed_conv_bilinear", "t-conv bilinear"),
        ("pixel_shuffle", "shuffle"),
        ("pixel_shuffle_icnr", "shuffle ICNR"),
        ("pixel_dcl_5x5", "PixelDCL 5x5"),
        ("ipixel_dcl_equations", "iPixelDCL equations"),
        ("max_unpool", "unpool"),
        ("nearest", "nearest"),
    ],
)
def test_short_names_of_upsamplers(upsampler: str, label: str) -> None:
    assert short_name(upsampler) == label
