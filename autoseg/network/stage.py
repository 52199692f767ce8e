"""A node of a network of stages: blocks in a row."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.ops.layers import DropPath, Norm
from autoseg.ops.resize import Size
from autoseg.registry import BLOCKS


class Stage(nn.Module):
    """One node of a network: H(l-1) of each arrow into it -> (N, C, H, W). It is called as `Cell` is.

    The first block changes width and, on a down move, resolution; so a single arrow that does not go up needs no
    preprocessing. Several arrows, or one upwards, are brought to the stage's width and size and summed (HRNet, Wang et
    al. 2020). The blocks read the sum after a ReLU.
    """

    def __init__(
        self, block: str, depth: int, in_channels: int, channels: int, preprocess: Sequence[nn.Module], stride: int,
        norm: Norm,
    ) -> None:  # fmt: skip
        """in_channels: of what the first block reads. preprocess: one module an arrow; empty if it reads H(l-1)."""
        super().__init__()
        self.preprocess_prev = nn.ModuleList(preprocess)
        build = BLOCKS[block].build
        others = (build(channels, channels, 1, norm) for _ in range(depth - 1))
        self.blocks = nn.Sequential(build(in_channels, channels, stride, norm), *others)
        self.out_channels = channels

    def forward(
        self, prev: Sequence[Tensor], prev_prev: Tensor, size: Size, encoder_feature: Tensor | None = None
    ) -> Tensor:
        """The stage's output. size: its (H, W); encoder_feature: the encoder's feature of that size, if needed."""
        entering = prev[0]
        if len(self.preprocess_prev):
            parts = zip(self.preprocess_prev, prev, strict=True)
            summands = [module(features, size, encoder_feature) for module, features in parts]
            entering = sum(summands[1:], summands[0])
        return self.blocks(F.relu(entering))

    def set_drop_probability(self, probability: float) -> None:
        """From now on, drop the branch of each residual block with this probability in training."""
        for block in self.blocks:
            if isinstance(block, DropPath):
                block.set_drop_probability(probability)
