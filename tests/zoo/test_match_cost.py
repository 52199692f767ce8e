"""Widths for equal cost."""

from __future__ import annotations

import re

import pytest
from helpers.errors import raises_code

from autoseg.analysis.flops import count_cost
from autoseg.errors import AutosegError, ConfigError, GenotypeError
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.zoo.build import build_network
from autoseg.zoo.match_cost import CostTarget, cost_target, match_cost
from autoseg.zoo.schema import FixedNetwork


def parameters(network: FixedNetwork, classes: int) -> int:
    return sum(parameter.numel() for parameter in build_network(network, classes).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "fcn8s", "deeplabv3plus", "pixeldcn"])
def test_a_number_of_parameters_is_met_within_two_percent(name: str) -> None:
    network = match_cost(FixedNetwork.parse(name), cost_target("1M"), 11)
    assert abs(parameters(network, 11) / 1e6 - 1) <= 0.02
    assert network.name == FixedNetwork.parse(name).name


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["parameters", "multiply_adds"])
def test_a_genotype_is_met_within_two_percent(unit: str) -> None:
    genotype = Genotype.load("unet_shaped")
    target = cost_target("unet_shaped", unit)
    assert target.retrain == genotype.retrain  # a fair comparison trains both alike
    network = match_cost(FixedNetwork.parse("segnet"), target, 5)
    costs = [
        count_cost(build, (256, 256))
        for build in (lambda: build_searched(genotype, 5), lambda: build_network(network, 5))
    ]
    wanted, found = (getattr(cost, unit) for cost in costs)
    assert abs(found / wanted - 1) <= 0.02


@pytest.mark.slow
def test_a_cost_out_of_reach_says_what_is_nearest() -> None:
    with raises_code(ConfigError, "cost-unreachable", "unet", "parameters of 10, ") as caught:
        match_cost(FixedNetwork.parse("unet"), CostTarget(10.0), 3)
    assert re.search(r"width, 0\.\d+, has [\d,]+", str(caught.value))


@pytest.mark.parametrize(
    ("source", "unit", "kind", "code", "named"),
    [
        ("1M", "seconds", ConfigError, "unknown-cost-unit", ["parameters or multiply_adds", "seconds"]),
        ("0", "parameters", ConfigError, "cost-out-of-range", ["1, not '0'"]),
        ("nan", "parameters", ConfigError, "cost-out-of-range", ["1, not 'nan'"]),
        ("nothing", "parameters", GenotypeError, "unknown-network", ["'nothing'"]),
    ],
)
def test_wrong_targets(source: str, unit: str, kind: type[AutosegError], code: str, named: list[str]) -> None:
    with raises_code(kind, code, *named):
        cost_target(source, unit)


@pytest.mark.parametrize(("text", "number"), [("1M", 1e6), ("2.5B", 2.5e9), ("300k", 3e5), ("1e6", 1e6), ("7", 7.0)])
def test_numbers(text: str, number: float) -> None:
    assert cost_target(text) == CostTarget(number)
