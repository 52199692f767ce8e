"""Auto-DeepLab-S, -M and -L cost what the paper prints, and a small network what one counts by hand."""

from __future__ import annotations

import pytest
from helpers.genotypes import make_genotype

from autoseg.analysis.flops import count_cost, count_parameters
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters_m", "multiply_adds_b"),
    [("auto_deeplab_s", 10.15, 320.45), ("auto_deeplab_m", 21.62, 439.92), ("auto_deeplab_l", 44.42, 662.42)],
)
def test_published_networks_have_their_size(name: str, parameters_m: float, multiply_adds_b: float) -> None:
    """Parameters as the paper prints them; multiply-adds as plain counting gives them at 1025x2049.

    The paper's 333, 461 and 695 billion are a TensorFlow profiler's.
    """
    genotype = Genotype.load(name)
    cost = count_cost(lambda: build_searched(genotype, 19), (1025, 2049))
    assert round(cost.parameters / 1e6, 2) == parameters_m
    assert cost.multiply_adds / 1e9 == pytest.approx(multiply_adds_b, rel=1e-3)


CELL = (("prev_prev sep_conv_3x3", "prev atrous_conv_5x5"), ("b1 max_pool_3x3", "prev skip_connect"))
SMALL = make_genotype((4, 8), CELL, 3, "aspp", ((4, 5), (2, 2)), aspp_rates=[96])


def test_parameters_equal_a_count_by_hand() -> None:
    stem = (9 * 3 * 4 + 2 * 4) + (9 * 4 * 5 + 2 * 5)
    layer1 = (4 * 3 + 6) + (5 * 3 + 6) + 2 * (9 * 3 + 3 * 3 + 6) + (25 * 3 * 3 + 6)
    layer2 = (5 * 6 + 12) + (6 * 6 + 12) + 2 * (9 * 6 + 6 * 6 + 12) + (25 * 6 * 6 + 12)
    aspp = (12 * 6 + 12) + (9 * 12 * 6 + 12) + (12 * 6 + 12) + (18 * 6 + 12)
    classifier = 6 * 7 + 7
    assert count_parameters(build_searched(SMALL, 7)) == stem + layer1 + layer2 + aspp + classifier


def test_multiply_adds_equal_a_count_by_hand() -> None:
    half, quarter, eighth = 17 * 24, 9 * 12, 5 * 6  # pixels of 33x47 at strides 2, 4 and 8
    stem = half * 9 * 3 * 4 + quarter * 9 * 4 * 5
    layer1 = quarter * (4 * 3 + 5 * 3 + 2 * (9 * 3 + 3 * 3) + 25 * 3 * 3)
    layer2 = quarter * (5 * 6 + 6 * 6) + eighth * (2 * (9 * 6 + 6 * 6) + 25 * 6 * 6)
    aspp = eighth * (12 * 6 + 9 * 12 * 6 + 18 * 6) + 12 * 6
    classifier = eighth * 6 * 7
    cost = count_cost(lambda: build_searched(SMALL, 7), (33, 47))
    assert cost.multiply_adds == stem + layer1 + layer2 + aspp + classifier


@pytest.mark.slow
def test_cost_counts_the_auxiliary_head_in_the_parameters_only() -> None:
    """It has 16 filters on layer 1's 6 channels, and runs in training only."""
    without = count_cost(lambda: build_searched(SMALL, 7), (33, 47))
    with_head = count_cost(lambda: build_searched(SMALL, 7, auxiliary=True), (33, 47))
    assert with_head.parameters - without.parameters == 9 * 6 * 16 + 32 + 16 * 7 + 7
    assert with_head.multiply_adds == without.multiply_adds
