"""Sizes of levels, and resizing."""

from __future__ import annotations

import pytest
import torch
from helpers.oracle_operations import interpolate

from autoseg.ops.resize import level_size, resize, sum_resized


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


@pytest.mark.parametrize("size", [(33, 33), (34, 65), (96, 32)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_sum_resized_is_the_sum_of_features_resized_one_by_one(
    size: tuple[int, int], memory: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = [
        torch.randn(2, 3, *level_size(size, stride), dtype=torch.float64, generator=generator)
        .contiguous(memory_format=memory)
        .requires_grad_()
        for stride in (1, 4, 8, 32)
    ]
    direction = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    expected = sum(interpolate(feature, size) for feature in features)
    result = sum_resized(features, size)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(total, features, direction) for total in (result, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_sum_resized_of_half_precision_is_float32() -> None:
    features = [torch.ones(1, 2, 3, 3, dtype=torch.bfloat16), torch.ones(1, 2, 5, 5, dtype=torch.bfloat16)]
    with torch.autocast("cpu", torch.bfloat16):
        result = sum_resized(features, (9, 9))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full((1, 2, 9, 9), 2.0))
