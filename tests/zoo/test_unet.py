"""U-Net and PixelDCN: published parameters, what is concatenated, every upsampler, export."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from helpers.errors import raises_code
from helpers.zoo_contract import (
    CLASSES,
    assert_contract,
    assert_fills_every_size,
    assert_traces,
    count_parameters,
    made,
    noise,
    record,
)
from torch import nn
from torch.nn import functional as F

from autoseg.errors import SearchSpaceError
from autoseg.ops.upsample import TransposedConv
from autoseg.registry import UPSAMPLERS
from autoseg.zoo.unet import UNet

WIDTH = 0.06


def narrow(**options: object) -> UNet:
    return UNet(CLASSES, width=WIDTH, **options)  # type: ignore[arg-type]


def test_parameters_as_published() -> None:
    assert count_parameters(lambda: UNet(2, in_channels=1)) == 31_030_658


def test_parameters_with_batch_norm_and_other_upsamplers() -> None:
    """BN has a weight and a bias for the bias before it, up-convolutions included; PixelDCL 27 C^2 for 4."""
    channels, plain = [64, 128, 256, 512, 1024], count_parameters(lambda: UNet(2))
    normalised = 2 * sum(channels) + 2 * sum(channels[:-1]) + sum(channels[:-1])
    assert count_parameters(lambda: UNet(2, batch_norm=True)) - plain == normalised
    up_convs = sum(4 * 2 * fine * fine + fine for fine in channels[:-1])
    pixel_dcls = sum(9 * fine * (2 * fine + 2 * fine) for fine in channels[:-1])
    assert count_parameters(lambda: UNet(2, upsampler="pixel_dcl")) - plain == pixel_dcls - up_convs


@pytest.mark.slow
def test_half_the_width_is_half_of_every_level() -> None:
    half, whole = UNet(2, width=0.5), UNet(2)
    for one, another in zip(half.modules(), whole.modules(), strict=True):
        if isinstance(one, nn.Conv2d | nn.ConvTranspose2d):
            assert isinstance(another, nn.Conv2d | nn.ConvTranspose2d)
            assert 2 * one.out_channels == another.out_channels or another is whole.classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"batch_norm": True, "upsampler": "pixel_dcl"}, {"in_channels": 1, "upsampler": "max_unpool"}]
)
def test_contract(options: dict[str, object]) -> None:
    assert_contract(partial(narrow, **options))


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_every_upsampler(upsampler: str) -> None:
    network = made(partial(narrow, batch_norm=True, upsampler=upsampler))
    assert network(noise(1, 3, 33, 47)).shape == (1, CLASSES, 33, 47)


def test_unknown_upsampler() -> None:
    with raises_code(SearchSpaceError, "upsampler-invalid", "'biliner'", "did you mean 'bilinear'?"):
        UNet(2, upsampler="biliner")


@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "upsampler": "ipixel_dcl"}])
def test_each_level_pools_the_one_before_and_each_way_up_joins_its_own(options: dict[str, object]) -> None:
    network = made(partial(narrow, **options))
    counts = {"down": 5, "up": 4, "join": 4}
    down, up, join = ([f"{part}.{level}" for level in range(count)] for part, count in counts.items())
    seen = record(network, *down, *up, *join, "classifier")
    network(noise(2, 3, 33, 47))
    for finer, coarser in pairwise(down):
        torch.testing.assert_close(seen[coarser][0], F.max_pool2d(seen[finer][1], 2, ceil_mode=True))
    below = [down[-1], *join]
    for name, before, joining, skip in zip(up, below, join, reversed(down[:-1]), strict=False):
        assert torch.equal(seen[name][0], seen[before][1])
        assert seen[name][1].shape == seen[skip][1].shape, "the way up halves the channels and doubles the size"
        assert seen[name][1].min() >= 0, "a ReLU is after the upsampler"
        assert torch.equal(seen[joining][0], torch.cat([seen[name][1], seen[skip][1]], 1))
    assert torch.equal(seen["classifier"][0], seen[join[-1]][1])


def test_a_skip_alone_reaches_the_logits() -> None:
    """Level 1 changed after it was pooled: its skip connection is the only way left."""
    network = made(narrow)
    images = noise(1, 3, 32, 32)
    before = network(images)
    network.join[2].register_forward_pre_hook(lambda module, inputs: (inputs[0].index_fill(1, torch.tensor([9]), 1.0),))
    assert network.join[2][0][0].in_channels == 16, "eight channels from below, eight of the skip"
    assert not torch.equal(network(images), before)


def test_up_convolution_is_a_transposed_one_of_kernel_2() -> None:
    network = made(narrow)
    up = network.up[0]
    features, joined = noise(1, 61, 3, 2), noise(1, 31, 5, 4)
    conv = up.doubling.conv
    expected = F.relu(F.conv_transpose2d(features, conv.weight, conv.bias, stride=2))[:, :, :5]
    torch.testing.assert_close(up(features, joined), expected)


def test_dropout_at_the_end_of_the_two_coarsest_levels() -> None:
    network = made(partial(narrow, dropout=0.999)).train()
    seen = record(network, *(f"down.{level}" for level in range(5)))
    network(noise(1, 3, 64, 64))
    alive = [(seen[f"down.{level}"][1] != 0).float().mean() for level in range(5)]
    assert min(alive[:3]) > 0.1
    assert max(alive[3:]) < 0.02


def test_initialisation() -> None:
    torch.manual_seed(0)
    network = UNet(21, width=0.5, upsampler="transposed_conv_bilinear")
    conv = network.join[0][0][0]
    assert abs(conv.weight.std() / (2 / (9 * conv.out_channels)) ** 0.5 - 1) < 0.02
    assert abs(network.classifier.weight.std() / 0.01 - 1) < 0.1
    hat = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    upsampler = network.up[0].doubling.up
    assert isinstance(upsampler, TransposedConv)
    kernel = upsampler.conv.weight[0, 0]
    torch.testing.assert_close(kernel / kernel[1, 1], torch.outer(hat, hat) / hat[1] ** 2)
    up_conv = UNet(21, width=0.5).up[0].doubling.conv
    assert abs(up_conv.weight.std() / (2 / up_conv.in_channels) ** 0.5 - 1) < 0.02


@pytest.mark.slow
def test_one_graph_for_every_size() -> None:
    assert_traces(partial(narrow, batch_norm=True, upsampler="pixel_dcl"))


def test_many_input_channels() -> None:
    assert_fills_every_size(made(partial(narrow, in_channels=7)))
