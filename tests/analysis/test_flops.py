"""Parameters and multiply-adds against counting by hand."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.analysis.flops import Cost, count_cost, count_parameters


def small_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2, bias=False),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(12, 5, 1),
    )


def test_multiply_adds_and_parameters_equal_a_count_by_hand() -> None:
    fine, coarse = 17 * 23, 9 * 12  # of 33x46, at strides 2 and 4
    products = fine * (8 * 3 * 9 + 8 * 25 + 12 * 4 * 9) + coarse * 5 * 12
    parameters = 8 * 3 * 9 + 2 * 8 + (8 * 25 + 8) + 12 * 4 * 9 + (5 * 12 + 5)
    assert count_cost(small_net, (33, 46)) == Cost(parameters, products, (33, 46))


def test_counting_computes_nothing_and_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    count_cost(small_net, (20_000, 20_000))  # gigabytes an activation, were it computed
    assert torch.equal(torch.get_rng_state(), state)


def test_shared_and_frozen_parameters_count_once_and_buffers_not_at_all() -> None:
    shared = nn.Conv2d(4, 4, 1)
    shared.weight.requires_grad_(False)
    assert count_parameters(nn.Sequential(shared, nn.BatchNorm2d(4, affine=False), shared)) == 16 + 4
