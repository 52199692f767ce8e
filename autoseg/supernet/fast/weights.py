"""The weights of the cells, laid out with alpha for calls that serve many edges at once. Letters: see `mixed_op.py`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.registry import OPERATIONS, FusedForm

BYPASS = "bypass"
"""The channels that bypass the operations (PC-DARTS): a column of the mixture, no operation of a space."""

WEIGHTED = ("separable", "dilated", "atrous")
"""The kinds of operations with weights (`autoseg.registry.FusedForm`), in stacking order."""
FREE = ("skip", "avg_pool", "max_pool")
"""The kinds without weights."""


def fused_form(operation: str) -> FusedForm:
    """The fused form of an operation; `none` for a column that is no operation."""
    record = OPERATIONS.get(operation)
    return FusedForm("none") if record is None or record.fused is None else record.fused


def of_kind(operations: Sequence[str], *kinds: str) -> list[str]:
    """The operations whose fused form has one of the kinds."""
    return [name for name in operations if fused_form(name).kind in kinds]


class Kernels(NamedTuple):
    """Kernel sizes of the operations with weights, in the order of a search space."""

    separable: tuple[int, ...]
    dilated: tuple[int, ...]
    atrous: tuple[int, ...]

    @classmethod
    def of(cls, operations: Sequence[str]) -> Kernels:
        """The kernel sizes of a search space's operations."""
        return cls(*(tuple(fused_form(name).kernel_size for name in of_kind(operations, kind)) for kind in WEIGHTED))

    @property
    def depthwise(self) -> int:
        """Operations that end in a 1x1 convolution: S + D."""
        return len(self.separable) + len(self.dilated)

    @property
    def weighted(self) -> int:
        """Operations with weights: S + D + A."""
        return self.depthwise + len(self.atrous)


class EdgeGroup(NamedTuple):
    """Edges that are evaluated together: G groups of E edges each."""

    groups: tuple[tuple[int, ...], ...]  # the numbers of the edges (rows of alpha) of each group

    @property
    def numbers(self) -> list[int]:
        """All G*E edge numbers, group by group."""
        return [number for group in self.groups for number in group]


class CellWeights(nn.Module):
    """Every weight of a cell: one tensor for all edges and each kernel size, shared by the arrows into the node.

    The edges come in alpha's order; those of `atrous`, the bulk of the weights, are sorted by the state that they read.
    """

    def __init__(self, edges: int, channels: int, kernels: Kernels) -> None:
        super().__init__()
        self.edges, self.channels, self.kernels = edges, channels, kernels

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan))  # He et al. 2015; fan: inputs of one output

        def depthwise(sizes: Iterable[int]) -> nn.ParameterList:
            return nn.ParameterList(weight(edges * channels, 1, k, k, fan=k * k) for k in sizes)

        def pointwise(operations: int) -> nn.Parameter | None:
            return weight(operations * edges, channels, channels, fan=channels) if operations else None

        self.depthwise1 = depthwise(kernels.separable)
        self.pointwise1 = pointwise(len(kernels.separable))
        self.depthwise2 = depthwise(kernels.separable)
        self.dilated = depthwise(kernels.dilated)
        self.pointwise2 = pointwise(kernels.depthwise)
        dense = (weight(edges * channels, channels, k, k, fan=channels * k * k) for k in kernels.atrous)
        self.atrous = nn.ParameterList(dense)


class EdgeGroupWeights(NamedTuple):
    """The weights of one edge group, groups and edges repeated; None if the space has no such operation."""

    depthwise1: Tensor | None = None  # (S*G*E*C, 1, k, k), smaller kernels padded with zeros
    pointwise1: Tensor | None = None  # (S*G*E*C, C, 1, 1)
    depthwise2: Tensor | None = None  # as depthwise1
    dilated: Tensor | None = None  # (D*G*E*C, 1, k, k)
    pointwise2: Tensor | None = None  # ((S+D)*G*E*C, C, 1, 1)


class WeightLayout(nn.Module):
    """The depthwise and pointwise weights of all cells, laid out for their edge groups by one gather per level.

    That takes a few calls; gathers for each cell and kernel size would take thousands.
    """

    depthwise_index: Tensor
    taps_together = False
    """Whether the depthwise weights of a tap are adjacent in memory, which our own kernels read fastest."""

    def __init__(self, cells: Sequence[CellWeights], groups: Sequence[Sequence[EdgeGroup]]) -> None:
        """groups: the edge groups of each cell. No parameter is registered here."""
        super().__init__()
        self._cells = tuple(cells)  # a tuple, which nn.Module does not look into
        self._groups = [list(of_cell) for of_cell in groups]
        self.kernels = cells[0].kernels
        self._lay_out_depthwise()
        self._widths = sorted({cell.channels for cell in cells})
        self._pointwise_sizes = {width: self._lay_out_pointwise(width) for width in self._widths}

    def forward(self, dtype: torch.dtype) -> list[list[EdgeGroupWeights]]:
        """For each cell, the weights of each edge group."""
        if not self.kernels.depthwise:
            return [[EdgeGroupWeights()] * len(groups) for groups in self._groups]
        depthwise = iter(torch.split(self._depthwise().to(dtype), self._depthwise_sizes))
        pointwise = {width: iter(self._pointwise(width, dtype)) for width in self._widths}
        result = []
        for cell, groups in zip(self._cells, self._groups, strict=True):
            of_cell = []
            for _ in groups:
                depthwise1, depthwise2, dilated = (_or_none(next(depthwise)) for _ in range(3))
                pointwise1, pointwise2 = (_or_none(next(pointwise[cell.channels])) for _ in range(2))
                of_cell.append(EdgeGroupWeights(depthwise1, pointwise1, depthwise2, dilated, pointwise2))
            result.append(of_cell)
        return result

    # --- depthwise: those of all levels at once, since channels are independent ---------------------------------

    def _lay_out_depthwise(self) -> None:
        stages = (
            ("depthwise1", self.kernels.separable),
            ("depthwise2", self.kernels.separable),
            ("dilated", self.kernels.dilated),
        )
        names = [(size, name, number) for name, sizes in stages for number, size in enumerate(sizes)]
        self._sources = sorted((*name, place) for name in names for place in range(len(self._cells)))
        offsets, offset = {}, 0
        for source in self._sources:
            offsets[source] = offset
            offset += self._cells[source[3]].edges * self._cells[source[3]].channels
        index, self._depthwise_sizes = [], []
        for place, (cell, groups) in enumerate(zip(self._cells, self._groups, strict=True)):
            for group in groups:
                for name, sizes in stages:
                    starts = [offsets[size, name, number, place] for number, size in enumerate(sizes)]
                    firsts = [start + n * cell.channels for start in starts for n in group.numbers]
                    index += [first + channel for first in firsts for channel in range(cell.channels)]
                    self._depthwise_sizes.append(len(starts) * len(group.numbers) * cell.channels)
        self.register_buffer("depthwise_index", torch.tensor(index, dtype=torch.int64), persistent=False)

    def _depthwise(self) -> Tensor:
        """(rows, 1, k, k) with the greatest k; smaller kernels are padded with zeros."""
        largest, parts = self._sources[-1][0], []
        for size in sorted({source[0] for source in self._sources}):
            of_size = [getattr(self._cells[at], name)[number] for k, name, number, at in self._sources if k == size]
            margin = (largest - size) // 2
            part = torch.cat(of_size)
            parts.append(F.pad(part, (margin,) * 4) if margin else part)
        stacked = torch.cat(parts) if len(parts) > 1 else parts[0]
        gathered = stacked.index_select(0, self.depthwise_index)
        return tap_by_tap(gathered) if self.taps_together else gathered

    # --- pointwise: level by level ------------------------------------------------------------------------------------

    def _lay_out_pointwise(self, width: int) -> list[int]:
        """Registers the index of a level; returns the sizes of its parts."""
        places = [place for place, cell in enumerate(self._cells) if cell.channels == width]
        first, both = len(self.kernels.separable), self.kernels.depthwise
        edges, rows, sizes = self._cells[places[0]].edges, [], []
        for number, place in enumerate(places):
            for group in self._groups[place]:
                for start, operations in ((number * first, first), (len(places) * first + number * both, both)):
                    rows += [(start + part) * edges + n for part in range(operations) for n in group.numbers]
                    sizes.append(operations * len(group.numbers) * width)
        self.register_buffer(f"pointwise_index_{width}", torch.tensor(rows, dtype=torch.int64), persistent=False)
        return sizes

    def _pointwise(self, width: int, dtype: torch.dtype) -> Sequence[Tensor]:
        cells = [cell for cell in self._cells if cell.channels == width]
        parts = [*(cell.pointwise1 for cell in cells), *(cell.pointwise2 for cell in cells)]
        stacked = torch.cat([part for part in parts if part is not None])
        gathered = stacked.index_select(0, self.get_buffer(f"pointwise_index_{width}"))
        return torch.split(gathered.view(-1, width, 1, 1).to(dtype), self._pointwise_sizes[width])


def tap_by_tap(weight: Tensor) -> Tensor:
    """(M, 1, k, k) with the weights of a tap side by side in memory."""
    return torch.unflatten(weight.flatten(1).T.contiguous().T, 1, weight.shape[1:])


def _or_none(weight: Tensor) -> Tensor | None:
    return weight if len(weight) else None


# --- alpha ------------------------------------------------------------------------------------------------------------


class Factors(NamedTuple):
    """alpha in the shapes that one group of edges needs."""

    weighted: Tensor | None  # for each channel of the stacked operations with weights, ((S+D+A)*G*E*C,)
    free: tuple[Any, ...]  # tensors for the operations without weights: see `parameter_free_ops.py`


CellKind = tuple[int, int]
"""Groups of a cell's states and channels of its weights: cells that agree in both need the same factors."""


class AlphaFactors(nn.Module):
    """`ArchParameters.mixture` [edge, operation] -> for each kind of cell, the factors of its edge groups."""

    def __init__(self, groups: Mapping[int, Sequence[EdgeGroup]], kinds: Iterable[CellKind], operations: Sequence[str]):
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
