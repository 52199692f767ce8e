"""alpha in the shapes that the cells need, for the whole supernet at once.

Letters: G groups of an edge group, E edges of each, C channels of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from autoseg.supernet.fast.mixed_op import Factors
from autoseg.supernet.fast.weights import BYPASS, FREE, WEIGHTED, EdgeGroup, of_kind

CellKind = tuple[int, int]
"""Groups of a cell's states and channels of its weights: cells that agree in both need the same factors."""


class AlphaFactors(nn.Module):
    """`ArchParameters.mixture` [edge, operation] -> for each kind of cell, the factors of its edge groups."""

    def __init__(self, groups: dict[int, Sequence[EdgeGroup]], kinds: Iterable[CellKind], operations: Sequence[str]):
        """groups: the edge groups of a cell, by the number of its arrows."""
        super().__init__()
        weighted = [operations.index(name) for kind in WEIGHTED for name in of_kind(operations, kind)]
        free = [operations.index(name) for name in of_kind(operations, *FREE)]
        bypass = [operations.index(name) for name in operations if name == BYPASS]
        width = len(operations)

        def entries(columns: Sequence[int], numbers: Sequence[int]) -> list[int]:
            return [number * width + column for column in columns for number in numbers]

        def register(name: str, index: Sequence[int], channels: int = 1) -> None:
            repeated = [entry for entry in index for _ in range(channels)]
            self.register_buffer(name, torch.tensor(repeated, dtype=torch.int64), persistent=False)

        self.kinds, self.free, self.bypass = sorted(set(kinds)), len(free), len(bypass)
        self.layouts = {arrows: [len(group.numbers) for group in of] for arrows, of in groups.items()}
        # after the first edge group, the factors do not depend on the arrows
        later = [group.groups[0] for group in next(iter(groups.values()))[1:]]
        self.later_edges = [len(numbers) for numbers in later]
        register("later", [entry for numbers in later for n in numbers for entry in entries(free, [n])])
        register("later_bypass", [entry for numbers in later for entry in entries(bypass, numbers)])
        for arrows, of in groups.items():
            register(f"first_{arrows}", entries([*free, *bypass], of[0].numbers))
        for arrows, channels in self.kinds:
            numbers = [entry for group in groups[arrows] for entry in entries(weighted, group.numbers)]
            register(f"weighted_{arrows}_{channels}", numbers, channels)
        self.weighted_sizes = {arrows: [len(weighted) * size for size in of] for arrows, of in self.layouts.items()}

    def forward(self, alpha: Tensor) -> dict[CellKind, list[Factors]]:
        """See the class."""
        flat = alpha.flatten()
        later = self._later(flat)
        free = {arrows: [self._first(arrows, flat), *later] for arrows in self.layouts}
        result = {}
        for arrows, channels in self.kinds:
            weighted: Sequence[Tensor | None] = [None] * len(self.layouts[arrows])
            if sum(self.weighted_sizes[arrows]):
                index = self.get_buffer(f"weighted_{arrows}_{channels}")
                sizes = [size * channels for size in self.weighted_sizes[arrows]]
                weighted = torch.split(flat.index_select(0, index), sizes)
            result[arrows, channels] = [Factors(*pair) for pair in zip(weighted, free[arrows], strict=True)]
        return result

    def _first(self, arrows: int, entries: Tensor) -> tuple[Tensor, ...]:
        """The factors of the first edge group, (G, E, 1) for each operation without weights."""
        if not self.free + self.bypass:
            return ()
        first = entries.index_select(0, self.get_buffer(f"first_{arrows}"))
        return tuple(first.view(self.free + self.bypass, 1 + arrows, -1, 1).unbind())

    def _later(self, entries: Tensor) -> list[tuple[Tensor, ...]]:
        """The factors of the other edge groups: (E, F) for the operations without weights, (E, 1) for the bypass."""
        result: list[tuple[Tensor, ...]] = [() for _ in self.later_edges]
        if self.free:
            of_free = entries.index_select(0, self.get_buffer("later")).view(-1, self.free)
            result = [(matrix,) for matrix in torch.split(of_free, self.later_edges)]
        if self.bypass:
            of_bypass = entries.index_select(0, self.get_buffer("later_bypass")).unsqueeze(1)
            pieces = torch.split(of_bypass, self.later_edges)
            result = [(*of, piece) for of, piece in zip(result, pieces, strict=True)]
        return result
