"""Boundaries between labels."""

from __future__ import annotations

import torch
from torch import Tensor


def on_boundary(masks: Tensor, ignore_label: int) -> Tensor:
    """Where (N, H, W) masks have another label above, below, left or right, bool; ignored pixels have and make none."""
    found = torch.zeros_like(masks, dtype=torch.bool)
    for axis in (1, 2):
        length = masks.shape[axis] - 1
        first, second = masks.narrow(axis, 0, length), masks.narrow(axis, 1, length)
        differ = (first != second) & (first != ignore_label) & (second != ignore_label)
        found.narrow(axis, 0, length).logical_or_(differ)
        found.narrow(axis, 1, length).logical_or_(differ)
    return found
