"""Networks of several paths against brute force: every set of arrows, with and without a budget."""

import itertools
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.spaces import random_probs, space_of

from autoseg.errors import GenotypeError
from autoseg.genotype.decode import decode, decode_cells
from autoseg.genotype.draws import count_topologies
from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL, Costs, topology_cost
from autoseg.genotype.multi_path import decode_topology
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.space.trellis import STEM_NODE, Arrow, Trellis

SHAPES: list[dict[str, Any]] = [
    {"layers": 2, "strides": [4, 8, 16]},
    {"layers": 3, "strides": [4, 8]},
    {"layers": 3, "strides": [4, 8, 16]},
    {"layers": 4, "strides": [4, 8], "moves": ["same", "down"]},
    {"layers": 5, "strides": [4, 8, 16], "down_layers": 2},
]


def multi_space(shape: dict[str, Any], **decoding: Any) -> SearchSpace:
    decoder = {"decoder": {"name": "classifier"}} if "down_layers" in shape else {}
    return space_of("plain", network={**shape, "filter_multiplier": 2, "paths": "multi"}, decoding=decoding, **decoder)


def is_feasible(kept: tuple[Arrow, ...], last: int) -> bool:
    """From the definition: a way in and a way out for every node that is touched, but for the two ends."""
    left, reached = {arrow.source for arrow in kept}, {arrow.target for arrow in kept}
    return (
        STEM_NODE in left and left <= reached | {STEM_NODE} and {node for node in reached if node.layer < last} <= left
    )


@cache
def feasible(trellis: Trellis) -> list[tuple[Arrow, ...]]:
    arrows = trellis.arrows
    subsets = itertools.chain.from_iterable(itertools.combinations(arrows, n) for n in range(1, len(arrows) + 1))
    return [kept for kept in subsets if is_feasible(kept, trellis.layers)]


def logits(probs: ArchProbs, kept: tuple[Arrow, ...]) -> float:
    p = np.array([probs.beta_probs[arrow.source.layer, arrow.source.level, arrow.move] for arrow in kept])
    shift = probs.space.decoding.threshold
    return float((np.log(p / (1 - p)) - np.log(shift / (1 - shift))).sum())


def rank(probs: ArchProbs, kept: tuple[Arrow, ...]) -> tuple[float, int, int]:
    """Greater is better; sums in another order differ by rounding."""
    return round(logits(probs, kept), 5), -len(kept), -sum(arrow.target.level for arrow in kept)


def cost(probs: ArchProbs, kept: tuple[Arrow, ...]) -> float:
    return topology_cost(Genotype.of_space(probs.space, "x", decode_cells(probs), kept, {})) / PER_BILLION_A_MEGAPIXEL


def with_decoding(probs: ArchProbs, **decoding: Any) -> ArchProbs:
    space = SearchSpace.parse({**probs.space.to_dict(), "decoding": decoding})
    return ArchProbs(space, probs.alpha_logits, probs.beta_logits)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.8])
def test_topology_is_the_best_of_all_feasible_ones(shape: dict[str, Any], threshold: float) -> None:
    space, rng = multi_space(shape, threshold=threshold), np.random.default_rng(3)
    for tied in (False, False, True, True):
        probs = random_probs(space, rng)
        if tied:  # few values: many topologies are equally good, and the rule decides
            probs = ArchProbs(space, probs.alpha_logits, np.sign(probs.beta_logits))
        found = decode_topology(probs.beta_probs, space, decode_cells(probs))
        assert is_feasible(found, space.network.layers)
        assert rank(probs, found) == max(rank(probs, kept) for kept in feasible(space.trellis))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_with_a_budget_it_is_the_best_of_those_that_cost_no_more(shape: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    bound = 0
    for tied in (False, False, True):
        probs = random_probs(multi_space(shape), rng)
        if tied:
            probs = ArchProbs(probs.space, probs.alpha_logits, np.sign(probs.beta_logits))
        costs = {kept: cost(probs, kept) for kept in feasible(probs.space.trellis)}
        free = decode_topology(probs.beta_probs, probs.space, decode_cells(probs))
        for budget in (min(costs.values()), *np.quantile(list(costs.values()), [0.02, 0.1, 0.3, 0.6])):
            limited = with_decoding(probs, budget=float(budget))
            found = decode_topology(limited.beta_probs, limited.space, decode_cells(limited))
            assert costs[found] <= budget
            assert rank(probs, found) == max(rank(probs, kept) for kept in costs if costs[kept] <= budget)
            bound += found != free
    assert bound > 3  # or the budget decided nothing


@pytest.mark.slow
def test_a_budget_below_the_cheapest_network_names_it() -> None:
    probs = random_probs(multi_space(SHAPES[2]), 5, 1.0)
    cheapest = min(cost(probs, kept) for kept in feasible(probs.space.trellis))
    given = f"{0.99 * cheapest:g}"
    with raises_code(GenotypeError, "budget-too-small", f"decoding.budget {given}", "'plain'") as caught:
        decode(with_decoding(probs, budget=0.99 * cheapest))
    (named,) = {float(number) for number in re.findall(r"\d+\.?\d*", str(caught.value)) if number != given}
    assert cheapest <= named <= cheapest + 1e-4
    assert cost(probs, decode(with_decoding(probs, budget=named)).arrows) <= named


def test_a_greater_budget_never_gives_a_worse_network_and_a_great_one_the_best() -> None:
    space = multi_space({"layers": 8, "strides": [4, 8, 16, 32]})
    probs = random_probs(space, 6)
    best = decode_topology(probs.beta_probs, space, decode_cells(probs))
    full, scores = cost(probs, best), []
    for share in (0.3, 0.5, 0.7, 0.9, 1.0):
        limited = with_decoding(probs, budget=share * full)
        found = decode_topology(limited.beta_probs, limited.space, decode_cells(limited))
        assert cost(probs, found) <= share * full
        scores.append(logits(probs, found))
    assert scores == sorted(scores)
    assert len(set(scores)) == 5
    assert scores[-1] == pytest.approx(logits(probs, best))


def test_equal_probabilities_give_the_path_at_the_highest_resolution() -> None:
    space = multi_space(SHAPES[2])
    found = decode_topology(ArchProbs.zeros(space).beta_probs, space, decode_cells(ArchProbs.zeros(space)))
    assert found == space.trellis.arrows_along([0, 0, 0])


def test_all_or_nothing_above_the_threshold() -> None:
    space = space_of(
        "plain",
        network={"layers": 12, "strides": [1, 2, 4, 8, 16, 32], "paths": "multi"},
        stem={"channels": [4], "strides": [1]},
    )
    zeros = ArchProbs.zeros(space)
    all_kept = ArchProbs(space, zeros.alpha_logits, zeros.beta_logits + 1)
    assert set(decode_topology(all_kept.beta_probs, space, decode_cells(zeros))) == set(space.trellis.arrows)
    none_kept = ArchProbs(space, zeros.alpha_logits, zeros.beta_logits - 1)
    assert len(decode_topology(none_kept.beta_probs, space, decode_cells(zeros))) == 12


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_feasible_topologies_are_counted(shape: dict[str, Any]) -> None:
    trellis = multi_space(shape).trellis
    assert count_topologies(trellis) == len(feasible(trellis))


def test_upsamplers_and_skips_count_in_the_budget() -> None:
    space = space_of("multi hourglass")
    probs = random_probs(space, 7, 1.0)
    beta = np.full_like(probs.beta_logits, 2.0)
    gamma = np.zeros_like(probs.gamma_logits)
    assert probs.skip_logits is not None
    dear, cheap = ([0.0, 3.0], [3.0, 0.0])
    networks = []
    for columns in (cheap, dear):
        gamma[:] = columns
        many = ArchProbs(space, probs.alpha_logits, beta, None, gamma, probs.skip_logits)
        networks.append(decode(many))
    costs = [topology_cost(network) / PER_BILLION_A_MEGAPIXEL for network in networks]
    assert costs[1] > 1.2 * costs[0]
    limited = decode(ArchProbs(space, probs.alpha_logits, beta, None, gamma, probs.skip_logits), budget=costs[0])
    assert topology_cost(limited) / PER_BILLION_A_MEGAPIXEL <= costs[0]
    assert len(limited.arrows) < len(networks[1].arrows)


def test_the_widest_feature_counts_if_a_skip_may_join_several() -> None:
    space = space_of("multi hourglass", stem={"channels": [64, 64], "strides": [2, 2]})
    costs = Costs.of_space(space, decode_cells(ArchProbs.zeros(space)))
    up = next(arrow for arrow in space.trellis.arrows if arrow.move == 0 and arrow.target.level == 0)
    assert costs.arrow(up, "bilinear", "add") == costs.arrow(up, "bilinear", "add", STEM_NODE)
    assert costs.arrow(up, "bilinear", "add") > costs.arrow(up, "bilinear", "add", up.target)
