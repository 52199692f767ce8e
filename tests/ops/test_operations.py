"""Cell operations against their definitions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import oracle_operations as formulas
from helpers.modules import noise, randomised
from torch import nn

from autoseg.ops.layers import ReluConvNorm
from autoseg.ops.resize import level_size
from autoseg.registry import OPERATIONS

NORM = partial(nn.BatchNorm2d, eps=1e-3)
SIZES = [(1, 1), (1, 4), (2, 2), (5, 5), (6, 9), (8, 8)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_their_definitions(name: str, stride: int) -> None:
    operation = randomised(OPERATIONS[name].build(3, stride, NORM))
    for size in SIZES:
        features = noise(3, 3, *size)
        result = operation(features)
        assert tuple(result.shape) == (3, 3, *level_size(size, stride))
        expected = formulas.apply(name, features, operation, stride)
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_leave_their_input_alone(name: str) -> None:
    """A state is read by several operations."""
    features = noise(2, 3, 6, 6)
    copy = features.clone()
    OPERATIONS[name].build(3, 1, NORM).double()(features)
    assert torch.equal(features, copy)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("skip_connect", 0),
        ("avg_pool_3x3", 0),
        ("max_pool_3x3", 0),
        ("sep_conv_3x3", 2 * (9 * 5 + 25 + 10)),
        ("sep_conv_5x5", 2 * (25 * 5 + 25 + 10)),
        ("atrous_conv_3x3", 9 * 25 + 10),  # dense, not depthwise: the published parameter counts need it
        ("atrous_conv_5x5", 25 * 25 + 10),
        ("dil_conv_3x3", 9 * 5 + 25 + 10),
        ("dil_conv_5x5", 25 * 5 + 25 + 10),
    ],
)
def test_operations_have_the_published_parameters(name: str, expected: int) -> None:
    operation = OPERATIONS[name].build(5, 1, nn.BatchNorm2d)
    assert sum(parameter.numel() for parameter in operation.parameters()) == expected


def test_average_pooling_leaves_the_padding_out() -> None:
    ones = torch.ones(1, 1, 4, 5)
    assert torch.equal(OPERATIONS["avg_pool_3x3"].build(1, 1, NORM)(ones), ones)


def test_relu_conv_norm_equals_its_definition() -> None:
    module = randomised(ReluConvNorm(3, 4, NORM))
    features = noise(2, 3, 5, 6)
    expected = formulas.normalise(formulas.convolve(features.clamp(min=0), module.conv.weight), module.norm)
    torch.testing.assert_close(module(features), expected, rtol=1e-9, atol=1e-9)
