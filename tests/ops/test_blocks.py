"""Blocks of stages against their definitions; sizes, cost, folding, drop path and tracing of every one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import oracle_operations as formulas
from helpers.modules import noise, randomised
from torch import Tensor, nn

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
