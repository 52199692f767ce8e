"""The weights of the cells, and how they are laid out for convolutions that serve many edges at once.

Letters: G groups (copies of a state, one for each arrow into the node), E edges that read a state, C channels of a
block, k kernel size; S, D and A kernel sizes of the separable, the dilated separable and the atrous convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEPARABLE = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}
DILATED = {"dil_conv_3x3": 3, "dil_conv_5x5": 5}
ATROUS = {"atrous_conv_3x3": 3, "atrous_conv_5x5": 5}
FREE = ("skip_connect", "avg_pool_3x3", "max_pool_3x3")
"""Operations without weights."""


class Kernels(NamedTuple):
    """Kernel sizes of the operations with weights, in the order of a search space."""

    separable: tuple[int, ...]
    dilated: tuple[int, ...]
    atrous: tuple[int, ...]

    @classmethod
    def of(cls, operations: Sequence[str]) -> Kernels:
        """Those among a search space's operations."""
        return cls(*(tuple(of[name] for name in operations if name in of) for of in (SEPARABLE, DILATED, ATROUS)))

    @property
    def depthwise(self) -> int:
        """Operations that end in a 1x1 convolution: S + D."""
        return len(self.separable) + len(self.dilated)

    @property
    def weighted(self) -> int:
        """Operations with weights: S + D + A."""
        return self.depthwise + len(self.atrous)


class Reading(NamedTuple):
    """States that are evaluated together: G groups of E edges, all of one width."""

    groups: tuple[tuple[int, ...], ...]
    """The numbers of the edges (rows of alpha) of each group."""

    @property
    def numbers(self) -> list[int]:
        """All G*E edge numbers, group by group."""
        return [number for group in self.groups for number in group]


class CellWeights(nn.Module):
    """Every weight of a cell: one tensor for all edges and each kernel size, shared by the arrows into the node."""

    def __init__(self, edges: int, channels: int, kernels: Kernels) -> None:
        super().__init__()
        self.edges, self.channels, self.kernels = edges, channels, kernels

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan))  # He et al. 2015; fan: inputs of one output

        def depthwise(sizes: Iterable[int]) -> nn.ParameterList:
            return nn.ParameterList(weight(edges, channels, 1, k, k, fan=k * k) for k in sizes)

        def pointwise(operations: int) -> nn.Parameter | None:
            return weight(operations * edges, channels, channels, fan=channels) if operations else None

        self.depthwise1 = depthwise(kernels.separable)
        self.pointwise1 = pointwise(len(kernels.separable))
        self.depthwise2 = depthwise(kernels.separable)
        self.dilated = depthwise(kernels.dilated)
        self.pointwise2 = pointwise(kernels.depthwise)
        self.atrous = nn.ParameterList(
            weight(edges * channels, channels, k, k, fan=channels * k * k) for k in kernels.atrous
        )


class ReadingWeights(NamedTuple):
    """What one reading's convolutions take, groups and edges repeated; None where a space has no such operation."""

    depthwise1: Tensor | None  # (S*G*E*C, 1, k, k), smaller kernels framed by zeros
    pointwise1: Tensor | None  # (S*G*E*C, C, 1, 1)
    depthwise2: Tensor | None  # as depthwise1
    dilated: Tensor | None  # (D*G*E*C, 1, k, k)
    pointwise2: Tensor | None  # ((S+D)*G*E*C, C, 1, 1)


class LevelWeights(nn.Module):
    """The depthwise and pointwise weights of all cells of one level, laid out for their readings by two gathers.

    One gather for the whole level costs a few calls where one for each cell and kernel size would cost hundreds.
    """

    depthwise_index: Tensor
    pointwise_index: Tensor

    def __init__(self, cells: Sequence[CellWeights], readings: Sequence[Sequence[Reading]]) -> None:
        """readings: those of each cell. The cells stay where they are; no parameter is registered here."""
        super().__init__()
        self._cells = tuple(cells)  # a tuple, which nn.Module does not look into
        self.channels, edges, kernels = cells[0].channels, cells[0].edges, cells[0].kernels
        self._readings = [len(of_cell) for of_cell in readings]
        stages = (("depthwise1", kernels.separable), ("depthwise2", kernels.separable), ("dilated", kernels.dilated))
        self._names = [(name, number, size) for name, sizes in stages for number, size in enumerate(sizes)]
        self._names.sort(key=lambda name: name[2])
        depthwise, pointwise = [], []
        self.depthwise_sizes, self.pointwise_sizes = [], []
        for place, of_cell in enumerate(readings):
            for reading in of_cell:
                for stage, sizes in stages:
                    blocks = [self._names.index((stage, number, size)) for number, size in enumerate(sizes)]
                    rows = [(b * len(cells) + place) * edges + n for b in blocks for n in reading.numbers]
                    depthwise += rows
                    self.depthwise_sizes.append(len(rows) * self.channels)
                first, both = len(kernels.separable), kernels.depthwise
                for offset, operations in ((place * first, first), (len(cells) * first + place * both, both)):
                    rows = [(offset + operation) * edges + n for operation in range(operations) for n in reading.numbers]
                    pointwise += rows
                    self.pointwise_sizes.append(len(rows) * self.channels)
        self.register_buffer("depthwise_index", torch.tensor(depthwise, dtype=torch.int64), persistent=False)
        self.register_buffer("pointwise_index", torch.tensor(pointwise, dtype=torch.int64), persistent=False)

    def forward(self, dtype: torch.dtype) -> list[list[ReadingWeights]]:
        """Of each cell, the weights of each reading."""
        if not self._names:
            return [[ReadingWeights(None, None, None, None, None)] * count for count in self._readings]
        depthwise = iter(torch.split(self._depthwise().to(dtype), self.depthwise_sizes))
        pointwise = iter(torch.split(self._pointwise().to(dtype), self.pointwise_sizes))
        result = []
        for count in self._readings:
            of_cell = []
            for _ in range(count):
                depthwise1, depthwise2, dilated = (_or_none(next(depthwise)) for _ in range(3))
                pointwise1, pointwise2 = (_or_none(next(pointwise)) for _ in range(2))
                of_cell.append(ReadingWeights(depthwise1, pointwise1, depthwise2, dilated, pointwise2))
            result.append(of_cell)
        return result

    def _depthwise(self) -> Tensor:
        largest = self._names[-1][2]
        parts = []
        for size in sorted({size for *_, size in self._names}):
            part = torch.cat([getattr(c, name)[i] for name, i, k in self._names if k == size for c in self._cells])
            margin = (largest - size) // 2
            parts.append(F.pad(part, (margin,) * 4) if margin else part)
        return torch.cat(parts).index_select(0, self.depthwise_index).flatten(0, 1)

    def _pointwise(self) -> Tensor:
        parts = [*(cell.pointwise1 for cell in self._cells), *(cell.pointwise2 for cell in self._cells)]
        gathered = torch.cat([part for part in parts if part is not None]).index_select(0, self.pointwise_index)
        return gathered.view(-1, self.channels, 1, 1)


def _or_none(weight: Tensor) -> Tensor | None:
    return weight if len(weight) else None
