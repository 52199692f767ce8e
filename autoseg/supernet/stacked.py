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
from collections.abc import Callable, Sequence
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


def _identity(state: Tensor) -> Tensor:
    return state


PARAMETER_FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "skip_connect": _identity,
    "avg_pool_3x3": partial(avg_pool, kernel_size=3),
    "max_pool_3x3": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
}
"""Operations without weights: done once for all edges that read a state."""


def split_channels(features: Tensor, *groups: int) -> Tensor:
    """(N, G1*G2*..., H, W) -> (N, H, W, G1, G2, ...): a view where the memory is channels_last."""
    return features.permute(0, 2, 3, 1).unflatten(3, groups)


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

    def __init__(self, readings: Sequence[Reading], channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.channels, self.readings = channels, list(readings)
        edges = 1 + max(number for reading in readings for number in reading.numbers)
        kernels = [SEPARABLE[name] for name in operations if name in SEPARABLE]
        atrous = [ATROUS[name] for name in operations if name in ATROUS]
        self.kernels = len(kernels)

        def weight(*shape: int, fan: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * math.sqrt(2 / fan))

        self.depthwise1 = nn.ParameterList(weight(edges, channels, 1, k, k, fan=k * k) for k in kernels)
        self.depthwise2 = nn.ParameterList(weight(edges, channels, 1, k, k, fan=k * k) for k in kernels)
        self.pointwise1 = weight(self.kernels * edges, channels, channels, fan=channels) if kernels else None
        self.pointwise2 = weight(self.kernels * edges, channels, channels, fan=channels) if kernels else None
        self.atrous = nn.ParameterList(weight(edges, channels, channels, k, k, fan=channels * k * k) for k in atrous)

        weighted = [i for names in (SEPARABLE, ATROUS) for i, name in enumerate(operations) if name in names]
        free = [i for i, name in enumerate(operations) if name in PARAMETER_FREE]
        self.alpha_sizes = [
            size for reading in readings
            for size in (len(weighted) * len(reading.numbers), *(len(reading.numbers) for _ in free))
        ]  # fmt: skip
        self._index("edge_index", [number for reading in readings for number in reading.numbers])
        self._index(
            "pointwise_index",
            [kernel * edges + n for reading in readings for kernel in range(self.kernels) for n in reading.numbers],
        )
        self._index(
            "alpha_index",
            [
                number * len(operations) + column
                for reading in readings
                for column in (*weighted, *free)
                for number in reading.numbers
            ],
        )

    def _index(self, name: str, values: list[int]) -> None:
        self.register_buffer(name, torch.tensor(values), persistent=False)

    def forward(self, alpha: Tensor) -> list[ReadingWeights]:
        """alpha: [edge, operation] -> the weights of every reading."""
        sizes = [len(reading.numbers) for reading in self.readings]
        edge_index, pointwise_index = self.get_buffer("edge_index"), self.get_buffer("pointwise_index")

        def per_edge(weights: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
            """Of each kernel size, and then turned around: of each reading."""
            arranged = [weight.index_select(0, edge_index).split(sizes) for weight in weights]
            return list(zip(*arranged, strict=True)) if arranged else [()] * len(sizes)

        def pointwise(weight: Tensor | None) -> Sequence[Tensor | None]:
            if weight is None:
                return [None] * len(sizes)
            return weight.index_select(0, pointwise_index).split([self.kernels * size for size in sizes])

        factors = alpha.flatten().index_select(0, self.get_buffer("alpha_index")).split(self.alpha_sizes)
        per_reading = len(factors) // len(sizes)
        return [
            ReadingWeights(
                depthwise1=[weight.flatten(0, 1) for weight in depthwise1],
                pointwise1=pointwise1,
                depthwise2=[weight.flatten(0, 1) for weight in depthwise2],
                pointwise2=pointwise2,
                atrous=list(atrous),
                alpha_weighted=factors[i * per_reading].unsqueeze(1).expand(-1, self.channels).reshape(-1),
                alpha_free=[
                    factor.view(len(reading.groups), -1, 1)
                    for factor in factors[i * per_reading + 1 : (i + 1) * per_reading]
                ],
            )
            for i, (reading, depthwise1, pointwise1, depthwise2, pointwise2, atrous) in enumerate(
                zip(
                    self.readings,
                    per_edge(list(self.depthwise1)),
                    pointwise(self.pointwise1),
                    per_edge(list(self.depthwise2)),
                    pointwise(self.pointwise2),
                    per_edge(list(self.atrous)),
                    strict=True,
                )
            )
        ]


class StackedNorm(nn.Module):
    """BatchNorm over stacked channels, without affine parameters but with a factor a channel (alpha) in the same pass."""

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
            result = state if operation is _identity else split_channels(operation(plain), self.groups, 1, self.channels)
            total = result * factor if total is None else torch.addcmul(total, result, factor)
        if total is None:
            raise ValueError("a cell needs an operation other than none")
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
        joined = join_channels(activated) if weights.atrous else activated
        return [
            F.conv2d(
                joined, weight.flatten(0, 1), padding=ATROUS_RATE * (weight.shape[-1] // 2), dilation=ATROUS_RATE,
                groups=self.groups,
            )
            for weight in weights.atrous
        ]  # fmt: skip


def _depthwise(features: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(features, weight, padding=weight.shape[-1] // 2, groups=len(weight))
