"""The graphs of a genotype, and the layout of its cell."""

from __future__ import annotations

import io
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from autoseg.genotype.schema import Genotype
from autoseg.registry import OPERATIONS
from autoseg.space.cell import state_name
from autoseg.viz.graph import cell_graph, genotype_graph, path_graph, short_name
from autoseg.viz.layout import PILL_HEIGHT, Box, CellLayout, Wire, lay_out, separate

PUBLISHED = "auto_deeplab_s"


def random_genotype(blocks: int, seed: int, inputs: int = 2) -> Genotype:
    rng = np.random.default_rng(seed)
    cell = [
        [
            {"input": state_name(int(state)), "operation": str(rng.choice(list(OPERATIONS)[1:]))}
            for state in sorted(rng.integers(0, block + 2, inputs))
        ]
        for block in range(blocks)
    ]
    return Genotype.parse({"name": "random", "cell": cell, "network": {"strides": [4, 8], "filter_multiplier": 8}})


def test_cell_of_the_published_network() -> None:
    graph = cell_graph(Genotype.load(PUBLISHED))
    assert list(graph) == ["prev_prev", "prev", "b1", "b2", "b3", "b4", "b5", "output"]
    operations = [(s, t, o) for s, t, o in graph.edges(data="operation") if o != "concat"]
    assert len(operations) == 10
    assert ("b4", "b5", "atrous_conv_5x5") in operations
    assert ("prev_prev", "b3", "sep_conv_3x3") in operations
    assert sorted(graph.predecessors("output")) == ["b1", "b2", "b3", "b4", "b5"]


def test_path_of_the_published_network() -> None:
    graph = path_graph(Genotype.load(PUBLISHED))
    assert list(graph) == ["stem", *(f"layer_{layer}" for layer in range(1, 13)), "decoder"]
    strides = [4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8]
    assert [graph.nodes[f"layer_{layer}"]["stride"] for layer in range(1, 13)] == strides
    assert [graph.nodes[f"layer_{layer}"]["filters"] for layer in range(1, 13)] == [5 * stride for stride in strides]
    assert graph.nodes["stem"] == {"kind": "stem", "stride": 4, "filters": 128}
    assert graph.nodes["decoder"]["filters"] == 256
    moves = [move for *_, move in nx.DiGraph(graph).edges(data="move")]
    down, same, up = moves.count("down"), moves.count("same"), moves.count("up")
    assert (down, same, up) == (4, 6, 3)
    assert nx.is_path(graph, list(graph))
    assert graph.number_of_edges() == 13


def test_two_operations_may_join_the_same_pair() -> None:
    edge = {"input": "prev", "operation": "skip_connect"}
    other = {"input": "prev", "operation": "sep_conv_3x3"}
    network = {"strides": [4, 4], "filter_multiplier": 8}
    genotype = Genotype.parse({"name": "twice", "cell": [[edge, other]], "network": network})
    graph = genotype_graph(genotype)
    joined = [data["operation"] for data in graph.get_edge_data("cell/prev", "cell/b1").values()]
    assert joined == ["skip_connect", "sep_conv_3x3"]
    assert len(pills(lay_out(cell_graph(genotype)))) == 2


def test_whole_graph_survives_graphml() -> None:
    genotype = Genotype.load(PUBLISHED)
    graph = genotype_graph(genotype)
    assert graph.number_of_nodes() == 14 + 8
    assert graph.number_of_edges() == 13 + 15
    for _, data in [*graph.nodes(data=True), *((None, data) for *_, data in graph.edges(data=True))]:
        assert all(type(value) in (str, int, float) for value in data.values())
    file = io.BytesIO()
    nx.write_graphml(graph, file)
    file.seek(0)
    read = nx.read_graphml(file, force_multigraph=True)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    assert {name.removeprefix("cell/") for name in read if name.startswith("cell/")} == set(cell_graph(genotype))
    edges = sorted((s, t, data.get("operation"), data.get("move")) for s, t, data in read.edges(data=True) if data)
    assert len(edges) == 28


@pytest.mark.parametrize(
    ("operation", "label"),
    [
        ("sep_conv_3x3", "sep 3x3"),
        ("atrous_conv_5x5", "atrous 5x5"),
        ("skip_connect", "skip"),
        ("avg_pool_3x3", "avg pool 3x3"),
        ("none", "none"),
        ("some_new_op", "some new op"),
    ],
)
def test_short_names(operation: str, label: str) -> None:
    assert short_name(operation) == label


# --- layout ---------------------------------------------------------------------------------------------------------


def inside(box: Box, x: np.ndarray, y: np.ndarray) -> bool:
    slack = 1e-6
    across = np.abs(x - box.x) < box.width / 2 - slack
    return bool((across & (np.abs(y - box.y) < box.height / 2 - slack)).any())


def points(wire: Wire) -> tuple[np.ndarray, np.ndarray]:
    """The cubic curve that `draw_cell` draws, sampled."""
    t = np.linspace(0, 1, 60)
    (x0, y0), (x1, y1) = wire.start, wire.end
    middle = (x0 + x1) / 2
    x = (1 - t) ** 3 * x0 + 3 * t * (1 - t) * middle + t**3 * x1
    y = y0 + (y1 - y0) * (3 * t**2 - 2 * t**3)
    return x, y


def pills(layout: CellLayout) -> list[tuple[Wire, Box]]:
    """The lines that end at an operation, with the operation's box."""
    width = layout.pill_width
    ends = [wire for wire in layout.wires if wire.operation is not None]
    return [(wire, Box(wire.end[0] + width / 2, wire.end[1], width, PILL_HEIGHT)) for wire in ends]


def rounded(x: float, y: float) -> tuple[float, float]:
    return round(x, 6), round(y, 6)


def overlap(a: Box, b: Box) -> bool:
    return abs(a.x - b.x) < (a.width + b.width) / 2 - 1e-6 and abs(a.y - b.y) < (a.height + b.height) / 2 - 1e-6


def assert_readable(layout: CellLayout) -> None:
    boxes = list(layout.boxes.items())
    for number, (name, box) in enumerate(boxes):
        assert not any(overlap(box, other) for _, other in boxes[number + 1 :]), f"{name} overlaps"
    operations = pills(layout)
    for number, (wire, pill) in enumerate(operations):
        assert not any(overlap(pill, other) for _, other in operations[number + 1 :])
        assert wire.target is not None
        block = layout.boxes[wire.target]
        assert abs(pill.y - block.y) + pill.height / 2 < block.height / 2
        assert abs(pill.x - block.x) + pill.width / 2 < block.width / 2
    entries = {rounded(*wire.end): wire.target for wire, _ in operations}
    for wire in layout.wires:
        own = entries.get(rounded(*wire.end))  # a line may enter the block whose operation it feeds
        assert wire.start[0] < wire.end[0]
        for name, box in boxes:
            assert name == own or not inside(box, *points(wire)), f"a line of {wire.source} runs through {name}"


@pytest.mark.parametrize(
    ("blocks", "seed", "inputs"), [(1, 0, 2), (1, 1, 1), (2, 3, 2), (5, 5, 2), (4, 7, 3), (16, 9, 2)]
)
def test_no_line_crosses_a_box(blocks: int, seed: int, inputs: int) -> None:
    assert_readable(lay_out(cell_graph(random_genotype(blocks, seed, inputs))))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_no_line_crosses_a_box_of_seven_blocks(seed: int) -> None:
    assert_readable(lay_out(cell_graph(random_genotype(7, seed))))


def test_layout_of_the_published_cell() -> None:
    genotype = Genotype.load(PUBLISHED)
    layout = lay_out(cell_graph(genotype))
    assert_readable(layout)
    again = lay_out(cell_graph(genotype))
    assert (layout.boxes, layout.wires) == (again.boxes, again.wires)
    drawn = sorted((wire.source, wire.target, wire.operation) for wire, _ in pills(layout))
    meant = sorted((e.input, f"b{n}", e.operation) for n, block in enumerate(genotype.cell, 1) for e in block)
    assert drawn == meant


def test_every_operation_is_reached_from_its_input() -> None:
    """Following the lines of a state from its box leads to each of its operations and, for a block, to the output."""
    genotype = random_genotype(7, 21)
    layout = lay_out(cell_graph(genotype))
    for state, box in layout.boxes.items():
        reached = {(box.x + box.width / 2, box.y)}
        for _ in layout.wires:
            reached |= {wire.end for wire in layout.wires if wire.source == state and wire.start in reached}
        for wire, _ in pills(layout):
            near = any(np.allclose(wire.end, point) for point in reached)
            assert near == (wire.source == state)
        output = layout.boxes["output"]
        at_output = any(np.isclose(x, output.x - output.width / 2) for x, _ in reached)
        assert at_output == state.startswith("b")


def test_separate_is_the_nearest_feasible_point() -> None:
    rng = np.random.default_rng(0)
    wanted, weights, gaps = rng.normal(size=6), rng.uniform(0.5, 2, 6), rng.uniform(0.1, 0.6, 5)
    best = separate(wanted, weights, gaps)
    assert (np.diff(best) >= gaps - 1e-12).all()
    cost = (weights * (best - wanted) ** 2).sum()
    for _ in range(300):
        other = best + rng.normal(size=6) * 0.05
        if (np.diff(other) >= gaps).all():
            assert (weights * (other - wanted) ** 2).sum() >= cost
    spread = np.arange(4) * 10.0
    assert separate(spread, np.ones(4), [1, 1, 1]) == pytest.approx(spread)


@pytest.mark.slow
def test_viz_needs_neither_torch_nor_pyplot() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; import autoseg.viz\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import autoseg.viz.trellis, autoseg.viz.samples, autoseg.viz.heat_maps, autoseg.viz.palette\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
