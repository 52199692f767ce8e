"""Sizes of levels, and resizing."""

from __future__ import annotations

import pytest
import torch

from autoseg.ops.resize import level_size, resize
from ops.formulas import interpolate


def test_level_sizes_of_odd_images_are_those_of_the_papers() -> None:
    assert [level_size((321, 1025), stride) for stride in (4, 8, 16, 32)] == [(81, 257), (41, 129), (21, 65), (11, 33)]


def test_halving_level_by_level_gives_the_size_at_once() -> None:
    for height in range(32, 200):
        size = (height, 231 - height)
        for stride in (2, 4, 8, 16, 32):
            assert level_size(level_size((height, 231 - height), stride // 2), 2) == level_size(size, stride)


def test_resizing_to_the_same_size_returns_the_same_tensor() -> None:
    features = torch.randn(2, 3, 5, 7)
    assert resize(features, (5, 7)) is features


@pytest.mark.parametrize("before", [(1, 1), (2, 3), (5, 4), (9, 9)])
@pytest.mark.parametrize("after", [(1, 2), (3, 5), (9, 7), (17, 8)])
def test_resizing_is_linear_interpolation_with_aligned_corners(before: tuple[int, int], after: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *before, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    resized = resize(features, after)
    torch.testing.assert_close(resized, interpolate(features, after), rtol=1e-12, atol=1e-12)
    assert torch.equal(resized[..., 0, 0], features[..., 0, 0])
    if min(after) > 1:
        torch.testing.assert_close(resized[..., -1, -1], features[..., -1, -1], rtol=1e-12, atol=1e-12)


def test_resizing_n_to_2n_minus_1_and_back_changes_nothing() -> None:
    features = torch.randn(1, 2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(features, (9, 15))[..., ::2, ::2], features)
    assert torch.equal(resize(resize(features, (9, 15)), (5, 8)), features)
