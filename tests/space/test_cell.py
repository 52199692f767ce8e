"""The edges inside a cell."""

import pytest

from autoseg.space.cell import PREV, PREV_PREV, CellTopology, state_index, state_name


def test_the_paper_cell_has_20_edges_block_by_block() -> None:
    topology = CellTopology(5)
    assert len(topology.edges) == 2 + 3 + 4 + 5 + 6
    assert topology.edges[:5] == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    assert topology.edges[-1] == (4, 5)


@pytest.mark.parametrize("blocks", [1, 2, 5, 16])
def test_every_block_reads_every_state_before_it_once(blocks: int) -> None:
    topology = CellTopology(blocks)
    assert len(topology.edges) == blocks * (blocks + 3) // 2
    for block in range(blocks):
        assert [topology.edges[edge] for edge in topology.edges_into(block)] == [(block, s) for s in range(block + 2)]
    assert len(topology.edges_from) == blocks + 2
    for state, edges in enumerate(topology.edges_from):
        assert [topology.edges[edge] for edge in edges] == [(b, state) for b in range(max(0, state - 1), blocks)]
    assert sorted(edge for edges in topology.edges_from for edge in edges) == list(range(len(topology.edges)))


def test_state_names() -> None:
    assert [state_name(state) for state in (PREV_PREV, PREV, 2, 3, 11)] == ["prev_prev", "prev", "b1", "b2", "b10"]
    assert all(state_index(state_name(state)) == state for state in range(20))


@pytest.mark.parametrize("name", ["", "b", "b0", "b-1", "b01", "b1 ", "bb", "B1", "next", "prev_prev_prev", "1", "b٣"])
def test_names_of_no_state_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown input"):
        state_index(name)
