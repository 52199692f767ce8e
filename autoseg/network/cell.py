"""A discrete cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoseg.genotype.schema import Edge
from autoseg.ops.primitives import Norm, ReluConvNorm
from autoseg.ops.registry import PRIMITIVES
from autoseg.ops.resize import Size, resize
from autoseg.space.trellis import Move


class Cell(nn.Module):
    """One layer of a network: (N, Cprev, ...), (N, Cprevprev, ...) -> (N, blocks * channels, H, W).

    On an up move H(l-1) is resized first; on a down move the stride is in the operations that read H(l-1) and H(l-2).
    H(l-2) is brought to the size at which H(l-1) enters. No ReLU or BN after the sums (Auto-DeepLab's code).
    """

    def __init__(
        self,
        edges: Sequence[Sequence[Edge]],
        channels: int,
        prev_channels: int,
        prev_prev_channels: int,
        move: Move,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.move = move
        self.drop_probability = 0.0
        self.preprocess_prev = ReluConvNorm(prev_channels, channels, norm)
        self.preprocess_prev_prev = ReluConvNorm(prev_prev_channels, channels, norm)
        self.states = tuple(tuple(edge.state for edge in block) for block in edges)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                PRIMITIVES[edge.operation](
                    channels=channels, stride=2 if move is Move.DOWN and edge.state < 2 else 1, norm=norm
                )
                for edge in block
            )
            for block in edges
        )
        self.out_channels = len(self.blocks) * channels

    def forward(self, prev: Tensor, prev_prev: Tensor, size: Size) -> Tensor:
        """The cell's output; `size` is the output's (H, W)."""
        if self.move is Move.UP:
            prev = resize(prev, size)
        prev_prev = resize(prev_prev, (prev.shape[-2], prev.shape[-1]))
        states = [self.preprocess_prev_prev(prev_prev), self.preprocess_prev(prev)]
        for block, sources in zip(self.blocks, self.states, strict=True):
            branches = [
                self._drop_path(operation(states[source]))
                for operation, source in zip(block, sources, strict=True)  # type: ignore[call-overload]
            ]
            states.append(sum(branches[1:], branches[0]))
        return torch.cat(states[2:], 1)

    def _drop_path(self, branch: Tensor) -> Tensor:
        """Drop the branch for some images of a training batch, and scale up what stays (Larsson et al. 2017)."""
        if not self.training or self.drop_probability == 0:
            return branch
        keep = 1 - self.drop_probability
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) < keep
        return branch * kept / keep
