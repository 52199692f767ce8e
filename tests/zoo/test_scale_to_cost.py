"""Genotypes at a given cost."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.analysis.flops import count_cost
from autoseg.errors import ConfigError
from autoseg.genotype.design import genotype_of, known_genes, sample_genes
from autoseg.genotype.scale import channels_of, neighbours, rounded, with_channels
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.space.schema import SearchSpace
from autoseg.zoo.match_cost import CostTarget, scale_to_cost

PIXELS = 256 * 256


def products(genotype: Genotype, classes: int) -> int:
    return count_cost(lambda: build_searched(genotype, classes), (256, 256)).multiply_adds


def test_channels_are_those_of_every_part_and_can_be_set() -> None:
    genotype = genotype_of(SearchSpace.load("wide"), known_genes(SearchSpace.load("wide"))["auto_deeplab_s"])
    channels = channels_of(genotype)
    assert channels == (64, 64, 128, 20, 40, 80, 160, 256, 48)
    others = tuple(range(1, 10))
    changed = with_channels(genotype, others)
    assert channels_of(changed) == others
    assert channels_of(with_channels(Genotype.load("auto_deeplab_s"), others)) == others  # it had no stages
    assert with_channels(changed, channels) == genotype


def test_rounding_goes_to_the_nearest_multiple_and_never_to_zero() -> None:
    assert rounded((10, 3, 100), 0.5) == (5, 2, 50)
    assert rounded((10, 3, 100), 1.3, 4) == (12, 4, 128)
    assert rounded((1, 2), 0.01, 8) == (8, 8)
    assert list(neighbours((4, 8), 4, up=False)) == [(4, 4)]
    assert list(neighbours((4, 8), 4, up=True)) == [(8, 8), (4, 12)]


@pytest.mark.parametrize(
    ("name", "billions"), [("unet", 2.0), ("hrnet_like", 9.0), ("enet_like", 4.0), ("deeplabv3plus", 2.0)]
)
def test_known_designs_reach_a_cost_within_two_percent(name: str, billions: float) -> None:
    space = SearchSpace.load("wide_small")
    nominal = genotype_of(space, known_genes(space)[name])
    scaled = scale_to_cost(nominal, CostTarget(billions * 1000 * PIXELS, "multiply_adds"), 5)
    assert products(scaled, 5) / (billions * 1000 * PIXELS) == pytest.approx(1, abs=0.02)
    assert scaled.network == nominal.network
    assert [stage.block for stage in scaled.stages] == [stage.block for stage in nominal.stages]
    factors = np.array(channels_of(scaled)) / np.array(channels_of(nominal))
    narrowest = min(stage.filters for stage in scaled.stages)
    assert factors.max() / factors.min() < 1 + 3 / 4 + 1 / narrowest  # steps are at most a quarter of the narrowest
    assert np.median(factors) == pytest.approx(factors.mean(), rel=0.15)


@pytest.mark.slow
def test_drawn_networks_reach_the_cost_of_their_space() -> None:
    space, rng = SearchSpace.load("wide_small"), np.random.default_rng(0)
    assert space.macro is not None
    target = CostTarget((space.macro.cost or 0) * 1000 * PIXELS, "multiply_adds")
    for _ in range(3):
        scaled = scale_to_cost(genotype_of(space, sample_genes(space, rng)), target, 11)
        assert products(scaled, 11) / target.count(11) == pytest.approx(1, abs=0.02)


def test_a_network_may_become_many_times_as_wide() -> None:
    genotype = with_channels(
        Genotype.load("deeplabv3_shaped"), [1] * len(channels_of(Genotype.load("deeplabv3_shaped")))
    )
    wanted = 300 * products(genotype, 5)
    assert products(scale_to_cost(genotype, CostTarget(wanted, "multiply_adds"), 5), 5) == pytest.approx(
        wanted, rel=0.02
    )


def test_large_networks_get_multiples_of_eight() -> None:
    space = SearchSpace.load("wide")
    nominal = genotype_of(space, known_genes(space)["deeplabv3plus"])
    scaled = scale_to_cost(nominal, CostTarget(400_000 * PIXELS, "multiply_adds"), 19)
    assert all(channels % 8 == 0 for channels in channels_of(scaled))


def test_a_cost_that_no_scale_has_is_refused() -> None:
    space = SearchSpace.load("wide_small")
    with raises_code(ConfigError, "cost-unreachable", "wide_small_member", "multiply-adds", "nearest"):
        scale_to_cost(genotype_of(space, known_genes(space)["unet"]), CostTarget(1000.0, "multiply_adds"), 5)
