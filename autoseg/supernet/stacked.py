"""All operations on all edges that read the same states, evaluated together and exactly.

The sums and gradients are those of one module an edge, operation and arrow; only the number of calls differs.

Letters: N images, G groups (copies of a state, one for each arrow into the node), E edges that read a state,
C channels of a block, K kernel sizes of the separable convolutions, H height, W width, T edges of the whole cell.
A feature is an (N, G*E*C, H, W) tensor in channels_last memory, which is (N, H, W, G, E, C): groups and edges are
groups of channels. BatchNorm then keeps the statistics of every arrow and edge apart by itself, and one convolution
serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.primitives import avg_pool

BN_EPS, BN_MOMENTUM = 1e-5, 0.1
NARROW = 8
"""Up to this width a CPU is faster at one product with zeros off the diagonal than at a grouped 1x1 convolution."""

SEPARABLE = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}
ATROUS = {"atrous_conv_3x3": 3, "atrous_conv_5x5": 5}
ATROUS_RATE = 2


PARAMETER_FREE: dict[str, Callable[[Tensor], Tensor] | None] = {
    "skip_connect": None,
    "avg_pool_3x3": partial(avg_pool, kernel_size=3),
    "max_pool_3x3": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
}
"""Operations without weights, done once for all edges that read a state; None: the state itself."""


def split_channels(features: Tensor, *groups: int) -> Tensor:
    """(N, G1*G2*..., H, W) -> (N, H, W, G1, G2, ...): a view where the memory is channels_last."""
    features = features.permute(0, 2, 3, 1)
    return features.view(*features.shape[:3], *groups)


def join_channels(features: Tensor) -> Tensor:
    """(N, H, W, G1, G2, ...) -> (N, G1*G2*..., H, W) in channels_last memory."""
    return features.flatten(3).permute(0, 3, 1, 2)


class Reading(NamedTuple):
    """States that are evaluated together: G groups of E edges, all of one width."""

    groups: tuple[tuple[int, ...], ...]
    """The numbers of the edges (rows of alpha) of each group."""

    @property
    def numbers(self) -> list[int]:
        """All G*E edge numbers, group by group."""
        return [number for group in self.groups for number in group]


class ReadingWeights(NamedTuple):
    """The weights of one reading, repeated for the arrows that share them, in the shapes of its convolutions."""

    depthwise1: list[Tensor]  # a kernel size: (G*E*C, 1, k, k)
    pointwise1: Tensor | None  # (K*G*E, C, C)
    depthwise2: list[Tensor]
    pointwise2: Tensor | None
    atrous: list[Tensor]  # a kernel size: (G*E, C, C, k, k)
    alpha_weighted: Tensor  # (operations with weights * G*E*C,): the factor of each stacked channel
    alpha_free: list[Tensor]  # an operation without weights: (G, E, 1)


class CellWeights(nn.Module):
    """Every weight of a cell, one tensor for all edges and each kernel size, arranged for the readings by one gather.

    operations: of the search space, in the order of alpha's columns.
    """

    edge_index: Tensor
    pointwise_index: Tensor
    alpha_index: Tensor

    def __init__(self, readings: Sequence[Reading], channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.channels, self.readings = channels, list(readings)
        self.sizes = [len(reading.numbers) for reading in readings]
        edges = 1 + max(number for reading in readings for number in reading.numbers)
        separable = [SEPARABLE[name] for name in operations if name in SEPARABLE]
        atrous = [ATROUS[name] for name in operations if name in ATROUS]
        self.kernels = len(separable)

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan))  # He et al. 2015; fan: inputs of one output

        self.depthwise1 = nn.ParameterList(weight(edges, channels, 1, k, k, fan=k * k) for k in separable)
        self.depthwise2 = nn.ParameterList(weight(edges, channels, 1, k, k, fan=k * k) for k in separable)
        self.pointwise1 = weight(self.kernels * edges, channels, channels, fan=channels) if separable else None
        self.pointwise2 = weight(self.kernels * edges, channels, channels, fan=channels) if separable else None
        self.atrous = nn.ParameterList(weight(edges, channels, channels, k, k, fan=channels * k * k) for k in atrous)
        self._index(edges, operations)

    def _index(self, edges: int, operations: Sequence[str]) -> None:
        """Where each reading finds its weights: rows of the stacked weights, entries of the flat alpha."""
        weighted = [column for names in (SEPARABLE, ATROUS) for column, name in enumerate(operations) if name in names]
        free = [column for column, name in enumerate(operations) if name in PARAMETER_FREE]
        self.free = len(free)
        self.alpha_sizes = [part for size in self.sizes for part in (len(weighted) * size, *[size] * len(free))]
        rows, pointwise_rows, entries = [], [], []
        for reading in self.readings:
            rows += reading.numbers
            pointwise_rows += [kernel * edges + n for kernel in range(self.kernels) for n in reading.numbers]
            entries += [n * len(operations) + column for column in (*weighted, *free) for n in reading.numbers]
        for name, index in (("edge_index", rows), ("pointwise_index", pointwise_rows), ("alpha_index", entries)):
            self.register_buffer(name, torch.tensor(index, dtype=torch.int64), persistent=False)

    def forward(self, alpha: Tensor) -> list[ReadingWeights]:
        """alpha: [edge, operation] -> the weights of every reading."""
        of_readings = zip(
            self._per_edge(self.depthwise1),
            self._pointwise(self.pointwise1),
            self._per_edge(self.depthwise2),
            self._pointwise(self.pointwise2),
            self._per_edge(self.atrous),
            self._factors(alpha),
            strict=True,
        )
        return [
            ReadingWeights(
                depthwise1=[weight.flatten(0, 1) for weight in depthwise1],
                pointwise1=pointwise1,
                depthwise2=[weight.flatten(0, 1) for weight in depthwise2],
                pointwise2=pointwise2,
                atrous=list(atrous),
                alpha_weighted=alpha_weighted,
                alpha_free=alpha_free,
            )
            for depthwise1, pointwise1, depthwise2, pointwise2, atrous, (alpha_weighted, alpha_free) in of_readings
        ]

    def _per_edge(self, weights: Iterable[Tensor]) -> Sequence[tuple[Tensor, ...]]:
        """Of each reading, the weights of its edges: one tensor a kernel size."""
        arranged = [torch.split(weight.index_select(0, self.edge_index), self.sizes) for weight in weights]
        return list(zip(*arranged, strict=True)) if arranged else [()] * len(self.sizes)

    def _pointwise(self, weight: Tensor | None) -> Sequence[Tensor | None]:
        """Of each reading, the 1x1 weights of its edges, all kernel sizes in one tensor."""
        if weight is None:
            return [None] * len(self.sizes)
        return torch.split(weight.index_select(0, self.pointwise_index), [self.kernels * size for size in self.sizes])

    def _factors(self, alpha: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Of each reading, `alpha_weighted` and `alpha_free`."""
        factors = iter(torch.split(alpha.flatten().index_select(0, self.alpha_index), self.alpha_sizes))
        for reading in self.readings:
            weighted = next(factors).unsqueeze(1).expand(-1, self.channels).reshape(-1)
            yield weighted, [next(factors).view(len(reading.groups), -1, 1) for _ in range(self.free)]


class StackedNorm(nn.Module):
    """BatchNorm over stacked channels without affine parameters, times a factor a channel (alpha) in the same pass."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor, factors: Tensor | None = None) -> Tensor:
        """(N, channels, H, W) -> the same, normalised and times factors: (channels,)."""
        return F.batch_norm(
            features, self.running_mean, self.running_var, factors, None, self.training, BN_MOMENTUM, BN_EPS
        )


class StackedEdges(nn.Module):
    """Every edge of one reading: sum over the operations o of alpha_o * O_o(state) (Auto-DeepLab, eq. 3)."""

    def __init__(self, reading: Reading, channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.groups, self.edges, self.channels = len(reading.groups), len(reading.groups[0]), channels
        self.kernels = sum(name in SEPARABLE for name in operations)
        self.weighted = self.kernels + sum(name in ATROUS for name in operations)
        self.free = [PARAMETER_FREE[name] for name in operations if name in PARAMETER_FREE]
        width = self.groups * self.edges * channels
        self.inner_norm = StackedNorm(self.kernels * width) if self.kernels else None
        self.norm = StackedNorm(self.weighted * width) if self.weighted else None

    def forward(self, state: Tensor, weights: ReadingWeights) -> Tensor:
        """state: (N, H, W, G, 1, C) -> (N, H, W, G, E, C)."""
        total: Tensor | None = None
        if self.norm is not None:
            activated = F.relu(state)
            features = torch.cat([*self._separable(activated, weights), *self._atrous(activated, weights)], 1)
            features = self.norm(features, weights.alpha_weighted)
            total = split_channels(features, self.weighted, self.groups, self.edges, self.channels).sum(3)
        plain = join_channels(state)
        for operation, factor in zip(self.free, weights.alpha_free, strict=True):
            result = state if operation is None else split_channels(operation(plain), self.groups, 1, self.channels)
            total = result * factor if total is None else torch.addcmul(total, result, factor)
        assert total is not None  # a search space has an operation other than none
        return total

    def _separable(self, activated: Tensor, weights: ReadingWeights) -> list[Tensor]:
        """[ReLU, depthwise, 1x1, BN] twice but for the last BN, all kernel sizes: one (N, K*G*E*C, H, W), or none."""
        if self.inner_norm is None or weights.pointwise1 is None or weights.pointwise2 is None:
            return []
        copies = join_channels(activated.expand(-1, -1, -1, -1, self.edges, -1))
        features = torch.cat([_depthwise(copies, weight) for weight in weights.depthwise1], 1)
        features = F.relu(self.inner_norm(self._pointwise(features, weights.pointwise1)))
        parts = features.chunk(self.kernels, 1)
        features = torch.cat(
            [_depthwise(part, weight) for part, weight in zip(parts, weights.depthwise2, strict=True)], 1
        )
        return [self._pointwise(features, weights.pointwise2)]

    def _pointwise(self, features: Tensor, weight: Tensor) -> Tensor:
        """One 1x1 convolution an edge; weight: (K*G*E, C, C)."""
        channels = self.channels
        groups = len(weight)
        if features.device.type == "cpu" and channels <= NARROW and self.edges > 1:
            groups = groups // self.edges
            diagonal = torch.eye(self.edges, dtype=weight.dtype).view(self.edges, 1, self.edges, 1)
            weight = weight.view(groups, self.edges, channels, 1, channels) * diagonal
        return F.conv2d(features, weight.view(features.shape[1], -1, 1, 1), groups=groups)

    def _atrous(self, activated: Tensor, weights: ReadingWeights) -> list[Tensor]:
        """ReLU and a dense convolution at rate 2, a kernel size: (N, G*E*C, H, W) each."""
        if not weights.atrous:
            return []
        joined = join_channels(activated)
        return [
            F.conv2d(
                joined, weight.flatten(0, 1), padding=ATROUS_RATE * (weight.shape[-1] // 2), dilation=ATROUS_RATE,
                groups=self.groups,
            )
            for weight in weights.atrous
        ]  # fmt: skip


def _depthwise(features: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(features, weight, padding=weight.shape[-1] // 2, groups=len(weight))
