"""The blocks of stages, one record each. This file loads without torch.

A block maps (N, Cin, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). A stage is one or more of them in a row. To
add one, write its record here, or in a file of your own (`docs/extending.md`).
"""

from __future__ import annotations

from autoseg.registry import Block, lazy, register

LAYERS = "autoseg.ops.block_layers"

EXPANSION, SQUEEZE = 4, 4
"""How much wider an inverted residual is inside, and how much narrower a bottleneck."""


def shortcut(in_channels: int, channels: int, stride: int) -> int:
    """Products of the 1x1 convolution of a shortcut, for one output pixel; 0 for the identity."""
    return in_channels * channels if stride > 1 or in_channels != channels else 0


def squeezed(channels: int) -> int:
    """Channels inside a bottleneck."""
    return max(1, channels // SQUEEZE)


def _conv(cin: int, c: int, stride: int) -> int:
    return 9 * cin * c


def _residual(cin: int, c: int, stride: int) -> int:
    return 9 * cin * c + 9 * c**2 + shortcut(cin, c, stride)


def _separable(cin: int, c: int, stride: int) -> int:
    return 9 * cin + cin * c + 9 * c + c**2 + shortcut(cin, c, stride)


def _bottleneck(cin: int, c: int, stride: int) -> int:
    inside = squeezed(c)
    return stride**2 * cin * inside + 9 * inside**2 + inside * c + shortcut(cin, c, stride)


def _inverted(cin: int, c: int, stride: int) -> int:
    wide = EXPANSION * cin
    return stride**2 * cin * wide + 9 * wide + wide * c


# one 3x3 convolution, behind 2x2 max pooling on a down move (U-Net); two with a shortcut (ResNet-18, HRNet), or the
# second at rate 2 (DeepLab); two separable ones with a shortcut (Xception, DeepLabv3+); 1x1, 3x3, 1x1 with a shortcut
# (ResNet-50, ENet); MobileNetV2's
register(Block("conv_3x3", "conv 3x3", _conv, lazy(LAYERS, "conv_block")))
register(Block("residual", "residual", _residual, lazy(LAYERS, "residual")))
register(Block("atrous_residual", "atrous residual", _residual, lazy(LAYERS, "residual", rate=2)))
register(Block("separable", "separable", _separable, lazy(LAYERS, "separable_residual")))
register(Block("bottleneck", "bottleneck", _bottleneck, lazy(LAYERS, "bottleneck")))
register(Block("inverted_residual", "inverted residual", _inverted, lazy(LAYERS, "InvertedResidual")))
