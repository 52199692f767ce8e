"""Depthwise convolutions of several kernel sizes: the CPU's backward pass against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from helpers.oracle_supernet import largest_difference

from autoseg.supernet.fast.convolutions import Depthwise


@pytest.mark.parametrize("sizes", [(3,), (5,), (3, 5), (5, 3)])
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("shape", [(2, 8, 7), (1, 1, 1), (3, 5, 2)])
def test_gradients_are_those_of_autograd(sizes: tuple[int, ...], rate: int, shape: tuple[int, int, int]) -> None:
    images, height, width = shape
    torch.manual_seed(0)
    channels, largest = 4, max(sizes)
    features = torch.randn(images, channels * len(sizes), height, width, dtype=torch.float64, requires_grad=True)
    kernels = [torch.randn(channels, 1, size, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    framed = [torch.nn.functional.pad(kernel, ((largest - kernel.shape[-1]) // 2,) * 4) for kernel in kernels]
    weight = torch.cat(framed)
    conv = Depthwise(sizes, rate)
    direction = torch.randn_like(features)
    expected = torch.autograd.grad(conv(features, weight), (features, *kernels), direction)
    with torch.no_grad():
        of_features, of_weight = conv.backward(direction, features, weight, True)
    assert largest_difference(of_features, expected[0]) < 1e-12
    for found, size, kernel in zip(of_weight.chunk(len(sizes)), sizes, expected[1:], strict=True):
        margin = (largest - size) // 2
        assert largest_difference(found[..., margin : largest - margin, margin : largest - margin], kernel) < 1e-12


def test_without_the_weight_s_gradient_none_is_computed() -> None:
    features, weight = torch.randn(2, 3, 5, 5), torch.randn(3, 1, 5, 5)
    found, none = Depthwise((5,)).backward(features, features, weight, False)
    assert none is None
    assert torch.equal(found, Depthwise((5,)).backward(features, features, weight, True)[0])
