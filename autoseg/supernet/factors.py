"""alpha and beta in the shapes in which the cells take them, for the whole supernet at once.

Letters: G groups of a reading, E its edges, C channels of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from autoseg.supernet.cell_weights import ATROUS, BYPASS, DILATED, FREE, SEPARABLE, Reading
from autoseg.supernet.reading import Factors

CellKind = tuple[int, int]
"""Groups of a cell's states and channels of its weights: cells that agree in both take alpha alike."""


class AlphaFactors(nn.Module):
    """`ArchParameters.mixture` [edge, operation] -> of each kind of cell, the factors of each of its readings."""

    def __init__(self, readings: dict[int, Sequence[Reading]], kinds: Iterable[CellKind], operations: Sequence[str]):
        """readings: of a cell, by the number of its groups."""
        super().__init__()
        weighted = [operations.index(name) for of in (SEPARABLE, DILATED, ATROUS) for name in operations if name in of]
        free = [operations.index(name) for name in operations if name in (*FREE, BYPASS)]
        width = len(operations)

        def entries(columns: Sequence[int], numbers: Sequence[int]) -> list[int]:
            return [number * width + column for column in columns for number in numbers]

        def register(name: str, index: Sequence[int], channels: int = 1) -> None:
            repeated = [entry for entry in index for _ in range(channels)]
            self.register_buffer(name, torch.tensor(repeated, dtype=torch.int64), persistent=False)

        self.kinds, self.columns = sorted(set(kinds)), len(free)
        self.layouts = {arrows: [len(reading.numbers) for reading in of] for arrows, of in readings.items()}
        # after the first reading, all groups read the same edges: one (E, 1) factor serves them, whatever the arrows
        any_layout = next(iter(readings.values()))
        later = [reading.groups[0] for reading in any_layout[1:]]
        self.later_sizes = [len(numbers) for numbers in later for _ in free]
        register("later", [entry for numbers in later for entry in entries(free, numbers)])
        for arrows, of in readings.items():
            register(f"first_{arrows}", entries(free, of[0].numbers))
        for arrows, channels in self.kinds:
            numbers = [entry for reading in readings[arrows] for entry in entries(weighted, reading.numbers)]
            register(f"weighted_{arrows}_{channels}", numbers, channels)
        self.weighted_sizes = {arrows: [len(weighted) * size for size in of] for arrows, of in self.layouts.items()}

    def forward(self, alpha: Tensor) -> dict[CellKind, list[Factors]]:
        """See the class."""
        flat = alpha.flatten()
        free = {arrows: self._free(arrows, flat.unsqueeze(1)) for arrows in self.layouts}
        result = {}
        for arrows, channels in self.kinds:
            weighted: Sequence[Tensor | None] = [None] * len(self.layouts[arrows])
            if sum(self.weighted_sizes[arrows]):
                index = self.get_buffer(f"weighted_{arrows}_{channels}")
                sizes = [size * channels for size in self.weighted_sizes[arrows]]
                weighted = torch.split(flat.index_select(0, index), sizes)
            result[arrows, channels] = [Factors(*pair) for pair in zip(weighted, free[arrows], strict=True)]
        return result

    def _free(self, arrows: int, entries: Tensor) -> list[tuple[Tensor, ...]]:
        """Of each reading, a factor an operation without weights; entries: alpha as a column."""
        if not self.columns:
            return [()] * len(self.layouts[arrows])
        first = entries.index_select(0, self.get_buffer(f"first_{arrows}"))
        later = torch.split(entries.index_select(0, self.get_buffer("later")), self.later_sizes)
        readings = [tuple(first.view(self.columns, 1 + arrows, -1, 1).unbind())]
        readings += [tuple(later[n : n + self.columns]) for n in range(0, len(later), self.columns)]
        return readings
