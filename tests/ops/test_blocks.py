"""Blocks of stages against their definitions; sizes, cost, folding, drop path and tracing of every one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.modules import noise, randomised
from helpers.oracle_blocks import apply, branch_of
from torch import nn

from autoseg.analysis.flops import count_multiply_adds
from autoseg.network import fold_batch_norm
from autoseg.ops.layers import DropPath
from autoseg.ops.resize import level_size
from autoseg.registry import BLOCKS

NORM = partial(nn.BatchNorm2d, eps=1e-3)
SIZES = [(1, 1), (1, 4), (2, 2), (5, 5), (6, 9), (9, 6)]
CHANNELS = [(3, 3), (3, 5), (9, 2), (1, 8)]
"""Before and after; with fewer than four after it, a bottleneck has one channel inside."""
MAY_ADD = ("residual", "atrous_residual", "separable", "bottleneck", "inverted_residual")


def built(name: str, in_channels: int, channels: int, stride: int) -> nn.Module:
    return randomised(BLOCKS[name].build(in_channels, channels, stride, NORM))


@pytest.mark.parametrize("channels", CHANNELS, ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_equal_their_definitions(name: str, stride: int, channels: tuple[int, int]) -> None:
    block = built(name, *channels, stride)
    for size in SIZES:
        features = noise(3, channels[0], *size)
        copy = features.clone()
        result = block(features)
        assert tuple(result.shape) == (3, channels[1], *level_size(size, stride))
        torch.testing.assert_close(result, apply(name, features, block, stride), rtol=1e-9, atol=1e-9)
        assert torch.equal(features, copy)  # another arrow or the decoder reads it too


@pytest.mark.parametrize("channels", [*CHANNELS, (16, 32)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_cost_what_they_say(name: str, stride: int, channels: tuple[int, int]) -> None:
    """Even sizes: at odd ones a layer before the stride has less than four pixels for one behind it."""
    with torch.device("meta"):
        block, features = BLOCKS[name].build(*channels, stride, NORM).eval(), torch.empty(1, channels[0], 6, 8)
        counted = count_multiply_adds(block, features)
    assert counted == BLOCKS[name].multiply_adds(*channels, stride) * 48 / stride**2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_fold(name: str, stride: int) -> None:
    """Every BatchNorm goes into the convolution before it; SIZES has odd and single pixels."""
    for channels in CHANNELS:
        block = built(name, *channels, stride)
        block(noise(4, channels[0], 7, 9, seed=2))  # statistics as a training might leave them
        block.eval()
        folded = fold_batch_norm(block)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        for size in SIZES:
            features = noise(2, channels[0], *size)
            torch.testing.assert_close(folded(features), block(features), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", BLOCKS)
def test_drop_path_drops_the_branch_and_keeps_the_shortcut(name: str) -> None:
    """Images whose branch is dropped have the shortcut alone; the others have the branch twice at probability 1/2."""
    block = built(name, 3, 3, 1)
    assert isinstance(block, DropPath) == (name in MAY_ADD)
    if not isinstance(block, DropPath):
        return
    features = noise(400, 3, 2, 2)
    whole, branch = block(features), branch_of(name, features, block.branch, 1)
    block.set_drop_probability(0.5)
    torch.manual_seed(0)
    result = block(features)
    relu = (lambda x: x) if name == "inverted_residual" else (lambda x: x.clamp(min=0))
    kept, dropped = relu(features + 2 * branch), relu(features)
    is_kept = (result - kept).abs().amax((1, 2, 3)) < 1e-9
    is_dropped = (result - dropped).abs().amax((1, 2, 3)) < 1e-9
    assert bool((is_kept ^ is_dropped).all())
    assert 0.4 < float(is_kept.double().mean()) < 0.6
    block.set_drop_probability(0.0)
    torch.testing.assert_close(block(features), whole)
    block.set_drop_probability(0.5)
    block.eval()
    torch.testing.assert_close(block(features).shape, whole.shape)
    assert torch.equal(block(features), block(features))


def test_drop_path_leaves_an_inverted_residual_without_shortcut_alone() -> None:
    """Else a dropped branch would leave nothing."""
    block = built("inverted_residual", 3, 4, 1)
    features = noise(8, 3, 2, 2)
    whole = block(features)
    block.set_drop_probability(0.9)
    assert torch.equal(block(features), whole)
