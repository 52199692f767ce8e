"""Small search spaces and their supernets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from autoseg.registry import OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet, build_supernet


def small_space(
    layers: int = 4,
    blocks: int = 2,
    strides: Sequence[int] = (4, 8, 16, 32),
    operations: Sequence[str] = tuple(OPERATIONS),
    filters: int = 2,
    stem: tuple[list[int], list[int]] | None = None,
    **network: Any,
) -> SearchSpace:
    """`stem`: channels and strides; left out, one convolution a halving."""
    halvings = strides[0].bit_length() - 1
    channels, stem_strides = stem or ([4] * max(halvings, 1), [2] * halvings or [1])
    return SearchSpace.parse(
        {
            "name": "small",
            "cell": {"blocks": blocks, "operations": list(operations)},
            "network": {"layers": layers, "strides": list(strides), "filter_multiplier": filters, **network},
            "stem": {"channels": channels, "strides": stem_strides},
        }
    )


def supernet_of(space: SearchSpace, num_classes: int = 3, seed: int = 0) -> Supernet:
    """In float64, with architecture logits that are far apart."""
    torch.manual_seed(seed)
    return build_supernet(space, num_classes, arch_init_std=1.0).double()
