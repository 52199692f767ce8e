"""Resizing as it is exported equals resizing as it is trained."""

from __future__ import annotations

import math

import pytest
import torch

from autoseg.ops.resize import _resize_any, level_size, resize


def test_level_size_is_the_ceiling() -> None:
    for length in range(1, 300):
        for stride in (1, 2, 4, 8, 16, 32):
            assert level_size((length, 2 * length), stride) == (
                math.ceil(length / stride),
                math.ceil(2 * length / stride),
            )


@pytest.mark.parametrize("source", [(1, 1), (2, 1), (1, 5), (3, 4), (7, 2)])
@pytest.mark.parametrize("target", [(1, 1), (1, 4), (5, 1), (3, 4), (13, 9)])
def test_exported_resizing_equals_interpolation(source: tuple[int, int], target: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *source, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exported = _resize_any(features, target)
    assert exported.shape == (2, 3, *target)
    torch.testing.assert_close(exported, resize(features, target), rtol=1e-12, atol=1e-12)
