"""Putting maps of low resolution together into one of twice the resolution.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Place = tuple[int, ...]
"""Of a map in the 2x2 (or 2x2x2) grid of a result: (row, column), or (depth, row, column)."""


def interleave(maps: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
    """Four (N, C, H, W) maps -> (N, C, 2H, 2W), each at its place of every 2x2 grid; eight likewise in 3-D.

    Two copies, in the maps' memory format.
    """
    in_order = [each for _, each in sorted(zip(places, maps, strict=True), key=lambda pair: pair[0])]
    axes = maps[0].dim() - 2
    if axes == 2 and maps[0].is_contiguous(memory_format=torch.channels_last):
        last = torch.stack([each.permute(0, 2, 3, 1) for each in in_order], 3).unflatten(3, (2, 2))
        return last.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    stacked = torch.stack(in_order, 2)
    if axes == 2:
        return F.pixel_shuffle(stacked.flatten(1, 2), 2)
    order = [axis for pair in zip(range(2 + axes, 2 + 2 * axes), range(2, 2 + axes), strict=True) for axis in pair]
    mixed = stacked.unflatten(2, (2,) * axes).permute(0, 1, *order)
    for axis in range(2, 2 + axes):
        mixed = mixed.flatten(axis, axis + 1)
    return mixed


def cut(output: Tensor, size: Sequence[int] | None) -> Tensor:
    """The first rows and columns of (N, C, H, W) as `size` has them; everything where it is None."""
    return output if size is None else output[(..., *(slice(length) for length in size))]
