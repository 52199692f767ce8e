"""Blocks of stages written out from the papers, on the formulas of `oracle_operations`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers import oracle_operations as formulas


def norm_of(x: Tensor, module: nn.Module, norm: str) -> Tensor:
    return formulas.normalise(x, module.get_submodule(norm))


def max_2x2(x: Tensor) -> Tensor:
    """The largest of each window's pixels that are inside the image."""
    rows, columns = range(0, x.shape[2], 2), range(0, x.shape[3], 2)
    return torch.stack([
        torch.stack([x[:, :, row : row + 2, column : column + 2].amax((2, 3)) for column in columns], 2)
        for row in rows
    ], 2)  # fmt: skip


def branch_of(name: str, x: Tensor, branch: nn.Module, stride: int) -> Tensor:
    """What is added to the shortcut, from the papers."""
    convolve, depthwise = formulas.convolve, formulas.depthwise
    if name in ("residual", "atrous_residual"):
        x = norm_of(convolve(x, branch.conv1.weight, stride), branch, "norm1").clamp(min=0)
        return norm_of(convolve(x, branch.conv2.weight, rate=2 if name[0] == "a" else 1), branch, "norm2")
    if name == "separable":
        x = convolve(depthwise(x, branch.depthwise1.weight, stride), branch.pointwise1.weight)
        x = norm_of(x, branch, "norm1").clamp(min=0)
        return norm_of(convolve(depthwise(x, branch.depthwise2.weight), branch.pointwise2.weight), branch, "norm2")
    x = norm_of(convolve(x, branch.conv1.weight), branch, "norm1").clamp(min=0)
    inside = convolve if name == "bottleneck" else depthwise
    x = norm_of(inside(x, branch.conv2.weight, stride), branch, "norm2").clamp(min=0)
    return norm_of(convolve(x, branch.conv3.weight), branch, "norm3")


def apply(name: str, x: Tensor, block: nn.Module, stride: int) -> Tensor:
    if name == "conv_3x3":
        x = max_2x2(x) if stride == 2 else x
        return norm_of(formulas.convolve(x, block.conv.weight), block, "norm").clamp(min=0)
    branch = branch_of(name, x, block.branch, stride)
    if name == "inverted_residual":
        return branch + x if x.shape == branch.shape and stride == 1 else branch
    if stride == 2 or x.shape[1] != branch.shape[1]:
        x = norm_of(formulas.convolve(x, block.shortcut.conv.weight, stride), block.shortcut, "norm")
    return (x + branch).clamp(min=0)
