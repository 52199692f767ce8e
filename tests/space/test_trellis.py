"""The trellis against the figures of the paper, plain enumeration, and powers of a matrix."""

from itertools import pairwise, product

import numpy as np
import pytest
from helpers.spaces import paths_of

from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Arrow, Move, Node, Trellis, filters_at, nearest_level

ALL = ("up", "same", "down")
STRIDES = [(4,), (1, 2), (4, 8), (2, 4, 8), (8, 16, 32), (4, 8, 16, 32), (1, 2, 4, 8, 16, 32)]
MOVES = [ALL, ("same",), ("up", "same"), ("same", "down"), ("up", "down")]


def enumerate_paths(layers: int, levels: int, moves: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Every tuple of levels whose steps are legal, by trying them all."""
    steps = {{"up": -1, "same": 0, "down": 1}[move] for move in moves}
    return [
        path
        for path in product(range(levels), repeat=layers)
        if all(after - before in steps for before, after in pairwise((0, *path)))
    ]


def test_the_paper_trellis_has_75025_paths_and_105_arrows() -> None:
    trellis = Trellis(12, (4, 8, 16, 32))
    assert trellis.count_paths() == 75_025
    by_layer = [sum(arrow.source.layer == layer for arrow in trellis.arrows) for layer in range(12)]
    assert by_layer == [2, 5, 8] + 9 * [10]
    assert len(trellis.arrows) == 105
    assert [len(trellis.nodes_at(layer)) for layer in range(13)] == [1, 2, 3] + 10 * [4]
    assert len(trellis.nodes) == 2 + 3 + 10 * 4


@pytest.mark.parametrize("moves", MOVES)
@pytest.mark.parametrize("strides", STRIDES)
def test_paths_and_their_number_equal_plain_enumeration(strides: tuple[int, ...], moves: tuple[str, ...]) -> None:
    for layers in (2, 3, 5):
        trellis = Trellis(layers, strides, moves)
        expected = enumerate_paths(layers, len(strides), moves)
        assert paths_of(trellis) == expected  # product() is in lexicographic order too
        assert trellis.count_paths() == len(expected)


@pytest.mark.parametrize("moves", [ALL, ("up", "same"), ("same", "down"), ("same",)])
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 6])
def test_path_count_equals_a_power_of_the_step_matrix(levels: int, moves: tuple[str, ...]) -> None:
    steps = {{"up": -1, "same": 0, "down": 1}[move] for move in moves}
    matrix = [[int(after - before in steps) for after in range(levels)] for before in range(levels)]
    for layers in (2, 7, 12, 100):
        power = np.linalg.matrix_power(np.array(matrix, dtype=object), layers)  # object: exact however large
        trellis = Trellis(layers, [4 * 2**level for level in range(levels)], moves)
        assert trellis.count_paths() == power[0].sum()


@pytest.mark.parametrize("moves", MOVES[:4])
@pytest.mark.parametrize("strides", STRIDES)
def test_graph_holds_exactly_the_reachable_nodes_and_their_legal_arrows(
    strides: tuple[int, ...], moves: tuple[str, ...]
) -> None:
    layers = 5
    trellis = Trellis(layers, strides, moves)
    paths = [(0, *path) for path in enumerate_paths(layers, len(strides), moves)]
    nodes = {Node(layer, level) for path in paths for layer, level in enumerate(path)}
    arrows = {
        Arrow(Node(layer, before), Node(layer + 1, after), Move(after - before + 1))
        for path in paths
        for layer, (before, after) in enumerate(pairwise(path))
    }
    assert set(trellis.graph) == nodes
    assert trellis.nodes == sorted(nodes - {STEM_NODE})
    assert trellis.arrows == sorted(arrows)
    assert {node: trellis.graph.nodes[node]["stride"] for node in nodes} == {node: strides[node[1]] for node in nodes}
    assert {(s, t, data["move"]) for s, t, data in trellis.graph.edges(data=True)} == arrows
    for node in nodes:
        assert trellis.arrows_from(node) == sorted(arrow for arrow in arrows if arrow.source == node)
        assert trellis.arrows_into(node) == sorted(arrow for arrow in arrows if arrow.target == node)


def test_moves_lead_where_their_names_say() -> None:
    assert [(move.name, int(move), move.step) for move in Move] == [("UP", 0, -1), ("SAME", 1, 0), ("DOWN", 2, 1)]
    trellis = Trellis(3, (4, 8, 16))
    assert trellis.arrows_from(Node(1, 1)) == [
        Arrow(Node(1, 1), Node(2, 0), Move.UP),
        Arrow(Node(1, 1), Node(2, 1), Move.SAME),
        Arrow(Node(1, 1), Node(2, 2), Move.DOWN),
    ]


def test_legal_mask_of_the_paper() -> None:
    mask = Trellis(12, (4, 8, 16, 32)).legal()
    assert mask.shape == (12, 4, 3)
    assert mask.dtype == bool
    assert mask.sum() == 105
    inner, top, bottom, nowhere = [True] * 3, [False, True, True], [True, True, False], [False] * 3
    assert mask[0].tolist() == [top, nowhere, nowhere, nowhere]
    assert mask[1].tolist() == [top, inner, nowhere, nowhere]
    assert mask[2].tolist() == [top, inner, inner, nowhere]
    assert all(mask[layer].tolist() == [top, inner, inner, bottom] for layer in range(3, 12))


def test_legal_mask_marks_the_arrows_whatever_the_moves() -> None:
    for strides, moves in product(STRIDES, MOVES[:4]):
        trellis = Trellis(4, strides, moves)
        expected = {(arrow.source.layer, arrow.source.level, int(arrow.move)) for arrow in trellis.arrows}
        assert set(map(tuple, np.argwhere(trellis.legal()).tolist())) == expected


def test_prev_prev_is_the_same_level_or_the_nearest_that_exists() -> None:
    trellis = Trellis(6, (4, 8, 16, 32))
    expected = {
        Node(1, 0): FIRST_STEM_NODE,
        Node(1, 1): FIRST_STEM_NODE,
        Node(2, 0): STEM_NODE,
        Node(2, 1): STEM_NODE,
        Node(2, 2): STEM_NODE,
        Node(3, 0): Node(1, 0),
        Node(3, 1): Node(1, 1),
        Node(3, 2): Node(1, 1),
        Node(3, 3): Node(1, 1),
        Node(4, 3): Node(2, 2),
        Node(5, 3): Node(3, 3),
        Node(6, 0): Node(4, 0),
    }
    assert {node: trellis.prev_prev(node) for node in expected} == expected


def test_prev_prev_exists_two_layers_before_and_none_is_nearer() -> None:
    for strides, moves in product(STRIDES, MOVES[:4]):
        trellis = Trellis(6, strides, moves)
        for node in trellis.nodes:
            found = trellis.prev_prev(node)
            assert found.layer == node.layer - 2
            if node.layer >= 2:
                assert found in trellis.graph
                distances = [abs(other.level - node.level) for other in trellis.nodes_at(node.layer - 2)]
                assert abs(found.level - node.level) == min(distances)


@pytest.mark.parametrize(
    ("level", "levels", "expected"), [(1, [0, 1, 2], 1), (1, [2, 0], 0), (3, [0, 1], 1), (0, [2, 3], 2), (2, [0, 3], 3)]
)
def test_the_nearest_level_is_taken_and_of_two_the_finer(level: int, levels: list[int], expected: int) -> None:
    assert nearest_level(level, levels) == expected


def test_filters_double_from_one_level_to_the_next() -> None:
    assert [filters_at(level, 20) for level in range(4)] == [20, 40, 80, 160]
