"""The relaxed cell of one node: all arrows into it and all edges of the cell, evaluated together.

Letters: N images, A arrows into the node, B blocks, C channels of a block, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.resize import Size, resize
from autoseg.space.cell import PREV, PREV_PREV, CellTopology
from autoseg.space.trellis import Move
from autoseg.supernet.stacked import (
    BN_EPS,
    BN_MOMENTUM,
    CellWeights,
    Reading,
    StackedEdges,
    StackedNorm,
    join_channels,
    split_channels,
)


def search_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm without affine parameters, as in DARTS (Liu et al. 2019); Auto-DeepLab is silent."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM, affine=False)


class Arrival(nn.Module):
    """Brings a feature to a node: resize or halve, ReLU, 1x1 convolution. (N, Cin, h, w) -> (N, C, H, W).

    Up: bilinear, then the 1x1 convolution (eq. 6). Down: two 1x1 convolutions of stride 2, the second one pixel off,
    half the channels each (the factorised reduction of DARTS); the paper says only that the step has stride 2.
    """

    def __init__(self, in_channels: int, channels: int, move: Move) -> None:
        super().__init__()
        self.move = move
        second = channels // 2 if move is Move.DOWN else 0
        stride = 2 if move is Move.DOWN else 1
        self.conv = nn.Conv2d(in_channels, channels - second, 1, stride, bias=False)
        self.conv_offset = nn.Conv2d(in_channels, second, 1, stride, bias=False) if second else None

    def forward(self, features: Tensor, size: Size) -> Tensor:
        """See the class; `size` is (H, W) of the node."""
        if self.move is not Move.DOWN:
            features = resize(features, size)
        activated = F.relu(features)
        reduced: Tensor = self.conv(activated)
        if self.conv_offset is None:
            return reduced
        height, width = activated.shape[-2:]
        shifted = F.pad(activated, (-1, width % 2, -1, height % 2))  # a last odd row or column meets zeros
        return torch.cat([reduced, self.conv_offset(shifted)], 1)


class SearchCell(nn.Module):
    """sum over the arrows of beta * Cell(H(l-1) through the arrow, H(l-2)) for one node (Auto-DeepLab, eq. 1-6).

    The arrows share the weights of the operations, which the paper leaves open, and have a preprocessing each;
    H(l-2) and the edges that read it are the same for all arrows and are evaluated once.
    """

    def __init__(
        self,
        arrivals: Sequence[tuple[int, Move]],
        prev_prev_channels: int,
        channels: int,
        topology: CellTopology,
        operations: Sequence[str],
    ) -> None:
        """arrivals: channels and move of each arrow into the node."""
        super().__init__()
        self.arrows, self.channels = len(arrivals), channels
        self.arrivals = nn.ModuleList(
            Arrival(width, channels, move) for width, move in ((prev_prev_channels, Move.SAME), *arrivals)
        )
        self.norm = StackedNorm((1 + self.arrows) * channels)
        edges = topology.edges_from
        readings = [Reading((edges[PREV_PREV], *(edges[PREV] for _ in arrivals)))]
        readings += [Reading(tuple(numbers for _ in arrivals)) for numbers in edges[2:] if numbers]
        self.weights = CellWeights(readings, channels, operations)
        self.readings = nn.ModuleList(StackedEdges(reading, channels, operations) for reading in readings)

    def forward(self, prev_prev: Tensor, prevs: Sequence[Tensor], alpha: Tensor, betas: Tensor, size: Size) -> Tensor:
        """The node's feature, (N, B*C, H, W) with `size` = (H, W).

        prev_prev: H(l-2); prevs: H(l-1) of each arrow; alpha: [edge, operation]; betas: (A,).
        """
        arrived = [arrival(feature, size) for arrival, feature in zip(self.arrivals, (prev_prev, *prevs), strict=True)]
        inputs = split_channels(self.norm(torch.cat(arrived, 1)), 1 + self.arrows, 1, self.channels)
        weights = self.weights(alpha)
        of_prev_prev, of_prev = self.readings[0](inputs, weights[0]).split((1, self.arrows), 3)
        # What the blocks still to come have received, (N, H, W, A, blocks, C): every state reaches all of them.
        received = of_prev + of_prev_prev
        blocks = []
        for reading, of_reading in zip(self.readings[1:], weights[1:], strict=True):
            block, received = received.split((1, received.shape[4] - 1), 4)
            blocks.append(block)
            received = received + reading(block, of_reading)
        outputs = torch.cat([*blocks, received], 4) * betas.view(-1, 1, 1)
        return join_channels(outputs.sum(3))
