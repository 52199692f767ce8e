"""Interleaving of low-resolution maps, cutting and striding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Place = tuple[int, ...]
"""A map's place in the 2x2 (or 2x2x2) grids of a result: (row, column), or (depth, row, column)."""
ROW_BY_ROW: tuple[Place, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


def interleave(maps: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """Four (N, C, H, W) maps -> (N, C, 2H, 2W), each at its place of every 2x2 grid; eight likewise in 3-D.

    It copies once for each axis, the last one first, and keeps the maps' memory format.
    """
    joined = [each for _, each in sorted(zip(places, maps, strict=True), key=lambda pair: pair[0])]
    axes = joined[0].dim() - 2
    channels_last = axes == 2 and is_channels_last(joined[0])
    if channels_last:
        joined = [each.permute(0, 2, 3, 1) for each in joined]
    first = 1 if channels_last else 2
    for axis in reversed(range(first, first + axes)):
        pairs = zip(joined[::2], joined[1::2], strict=True)
        joined = [torch.stack(pair, axis + 1).flatten(axis, axis + 1) for pair in pairs]
    return joined[0].permute(0, 3, 1, 2) if channels_last else joined[0]


def is_channels_last(features: Tensor) -> bool:
    """Whether the channels of (N, C, H, W) lie side by side; strides alone decide, as sizes would tie an export."""
    return features.stride(3) != 1 and features.stride(1) == 1


def cut(output: Tensor, size: Sequence[int] | None) -> Tensor:
    """The first `size` rows and columns of (N, C, H, W); everything for None."""
    if size is None:
        return output
    for axis, length in enumerate(size, start=2):
        if torch.compiler.is_exporting():  # export does not know a slice's size to be `length`
            output = output.index_select(axis, torch.arange(length, device=output.device))
        else:
            output = output.narrow(axis, 0, length)
    return output


def every_second(features: Tensor) -> Tensor:
    """Every second row and column from the first on, in the same memory format.

    It replaces the stride of 2 of a 1x1 convolution, whose backward pass corrupts memory in PyTorch 2.13 on a CPU, in
    channels_last and with fewer than 16 input channels.
    """
    picked = features[:, :, ::2, ::2]
    return picked.contiguous(memory_format=torch.channels_last) if is_channels_last(features) else picked
