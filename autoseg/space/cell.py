"""The directed graph inside a cell: which block may read which state."""

from __future__ import annotations

import re
from functools import cached_property

PREV_PREV, PREV = 0, 1
"""States 0 and 1 of every cell: H(l-2) and H(l-1). State 2 + i is the output of block i."""

INPUTS_PER_BLOCK = 2
"""Inputs that each block of a searched cell keeps."""


def state_name(state: int) -> str:
    """`prev_prev`, `prev`, `b1`, `b2`, ... as genotypes call them."""
    return ("prev_prev", "prev")[state] if state < 2 else f"b{state - 1}"


def state_index(name: str) -> int:
    """Inverse of `state_name`. Raises: ValueError: an unknown name."""
    if name in ("prev_prev", "prev"):
        return ("prev_prev", "prev").index(name)
    if re.fullmatch(r"b[1-9][0-9]{0,5}", name):
        return int(name[1:]) + 1
    raise ValueError(f"unknown input {name!r} (known: prev_prev, prev, b1, b2, ...)")


class CellTopology:
    """Edges of a cell with `blocks` blocks; block i reads every state before it (Auto-DeepLab, eq. 1).

    Edges are numbered block by block, and within a block by state: the rows of `alpha`.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        edges = ((block, state) for block in range(blocks) for state in range(block + 2))
        self.edges: tuple[tuple[int, int], ...] = tuple(edges)  # (block, state) of each

    @cached_property
    def edges_from(self) -> tuple[tuple[int, ...], ...]:
        """For each state, the numbers of the edges from it, by the block that reads it."""
        return tuple(
            tuple(number for number, (_, source) in enumerate(self.edges) if source == state)
            for state in range(self.blocks + 2)
        )

    def edges_into(self, block: int) -> tuple[int, ...]:
        """The numbers of the edges into a block, by state."""
        return tuple(number for number, (reader, _) in enumerate(self.edges) if reader == block)
