"""A discrete cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoseg.genotype.schema import Edge
from autoseg.ops.layers import DropPath, Norm, ReluConvNorm
from autoseg.ops.resize import Size, resize
from autoseg.registry import OPERATIONS


class Cell(DropPath):
    """One node of a network: H(l-1) of each arrow into it, H(l-2) -> (N, blocks * channels, H, W).

    The preprocessed inputs are summed before the cell; H(l-2) is resized to their size. With `stride` 2, on a path's
    down move, the operations that read H(l-1) and H(l-2) stride. No ReLU or BN follows the sums (Auto-DeepLab's code).
    """

    def __init__(
        self, edges: Sequence[Sequence[Edge]], channels: int, preprocess: Sequence[nn.Module], prev_prev_channels: int,
        stride: int, norm: Norm,
    ) -> None:  # fmt: skip
        """preprocess: one module an arrow, see `autoseg.network.preprocess`."""
        super().__init__()
        self.preprocess_prev = preprocess[0] if len(preprocess) == 1 else nn.ModuleList(preprocess)
        reads_prev_prev = any(edge.state == 0 for block in edges for edge in block)
        self.preprocess_prev_prev = ReluConvNorm(prev_prev_channels, channels, norm) if reads_prev_prev else None
        self.operations = tuple(tuple(edge.operation for edge in block) for block in edges)
        self.states = tuple(tuple(edge.state for edge in block) for block in edges)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                OPERATIONS[edge.operation].build(channels, stride if edge.state < 2 else 1, norm) for edge in block
            )
            for block in edges
        )
        self.out_channels = len(self.blocks) * channels

    def forward(
        self, prev: Sequence[Tensor], prev_prev: Tensor, size: Size, encoder_feature: Tensor | None = None
    ) -> Tensor:
        """The cell's output. size: its (H, W); encoder_feature: the encoder's feature of that size, if needed."""
        modules = self.preprocess_prev if isinstance(self.preprocess_prev, nn.ModuleList) else [self.preprocess_prev]
        summands = [module(features, size, encoder_feature) for module, features in zip(modules, prev, strict=True)]
        entering: Tensor = sum(summands[1:], summands[0])
        if self.preprocess_prev_prev is not None:  # else no operation reads it
            prev_prev = self.preprocess_prev_prev(resize(prev_prev, (entering.shape[-2], entering.shape[-1])))
        states = [prev_prev, entering]
        for block, sources in zip(self.blocks, self.states, strict=True):
            read = zip(block, sources, strict=True)  # type: ignore[call-overload]
            branches = [self.drop_path(operation(states[source])) for operation, source in read]
            states.append(sum(branches[1:], branches[0]))
        return torch.cat(states[2:], 1)
