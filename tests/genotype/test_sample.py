"""Random genotypes: uniform over paths and cells, and repeatable."""

import hashlib
import json
from collections import Counter
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from helpers.spaces import paths_of

from autoseg.genotype.draws import count_topologies, path_at, sample_cell, sample_path, sample_topology
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.schema import Genotype
from autoseg.space.groups import PAPER_OPERATIONS as OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Trellis


def make_space(**more: Any) -> SearchSpace:
    return SearchSpace.parse({"name": "test", **more})


def chi_square(counts: Counter[Any], choices: list[Any]) -> float:
    """Pearson's statistic against the uniform distribution, in standard deviations above its mean."""
    assert set(counts) <= set(choices)
    expected = sum(counts.values()) / len(choices)
    statistic = sum((counts[choice] - expected) ** 2 / expected for choice in choices)
    freedom = len(choices) - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("moves", [("up", "same", "down"), ("same", "down"), ("up", "same")])
@pytest.mark.parametrize(("layers", "strides"), [(2, (4, 8)), (5, (4, 8, 16, 32)), (7, (2, 4, 8)), (3, (4,))])
def test_path_at_numbers_every_path_in_order(layers: int, strides: tuple[int, ...], moves: tuple[str, ...]) -> None:
    trellis = Trellis(layers, strides, moves)
    assert [path_at(trellis, index) for index in range(trellis.count_paths())] == paths_of(trellis)
    for index in (-1, trellis.count_paths()):
        with pytest.raises(IndexError, match="there is no path"):
            path_at(trellis, index)


@pytest.mark.slow
def test_paths_are_uniform_and_not_by_uniform_moves() -> None:
    trellis = Trellis(5, (4, 8, 16, 32))
    paths = paths_of(trellis)
    rng = np.random.default_rng(0)
    counts = Counter(sample_path(trellis, rng) for _ in range(60 * len(paths)))
    assert abs(chi_square(counts, paths)) < 4
    # uniform moves would draw the border path 1.5^4 = 5 times as often as one inside
    assert counts[(0,) * 5] < 2 * 60


@pytest.mark.slow
def test_deep_trellises_have_more_paths_than_64_bits_and_are_sampled_all_the_same() -> None:
    trellis = Trellis(256, (4, 8, 16, 32))
    assert trellis.count_paths() > 2**64
    rng = np.random.default_rng(1)
    ends = Counter(sample_path(trellis, rng)[-1] for _ in range(150))
    assert set(ends) == {0, 1, 2, 3}
    assert path_at(trellis, trellis.count_paths() - 1)[-1] == 3


def test_pairs_of_inputs_and_operations_are_uniform() -> None:
    space = make_space(cell={"blocks": 5})
    rng = np.random.default_rng(2)
    pairs: Counter[Any] = Counter()
    operations: Counter[Any] = Counter()
    first: Counter[Any] = Counter()
    for _ in range(1000):
        *_, last = sample_cell(space, rng)
        pairs[tuple(edge.input for edge in last)] += 1
        operations.update(edge.operation for edge in last)
        first[tuple(edge.operation for edge in last)] += 1
    inputs = ["prev_prev", "prev", "b1", "b2", "b3", "b4"]
    assert abs(chi_square(pairs, list(combinations(inputs, 2)))) < 4
    assert abs(chi_square(operations, list(OPERATIONS[1:]))) < 4
    assert abs(chi_square(first, [(a, b) for a in OPERATIONS[1:] for b in OPERATIONS[1:]])) < 4


def test_none_is_never_drawn_wherever_it_stands() -> None:
    space = make_space(cell={"blocks": 3, "operations": ["skip_connect", "none", "sep_conv_3x3"]})
    drawn = {edge.operation for seed in range(30) for block in sample_genotype(space, seed).cell for edge in block}
    assert drawn == {"skip_connect", "sep_conv_3x3"}


def test_a_seed_repeats_and_a_generator_goes_on() -> None:
    space = make_space()
    assert sample_genotype(space, 3) == sample_genotype(space, 3)
    assert sample_genotype(space, 3).network != sample_genotype(space, 4).network
    rng = np.random.default_rng(3)
    one, other = sample_genotype(space, rng), sample_genotype(space, rng)
    assert one.cell == sample_genotype(space, 3).cell
    assert one.cell != other.cell


def test_seeds_of_spaces_without_choices_on_the_up_path_mean_the_same_as_before() -> None:
    drawn = [sample_genotype(SearchSpace.load("auto_deeplab"), seed).to_dict() for seed in range(20)]
    digest = hashlib.sha256(b"".join(json.dumps(genotype, sort_keys=True).encode() for genotype in drawn)).hexdigest()
    assert digest.startswith("d1c8f79d9cfb0b0c")


@pytest.mark.slow
def test_topologies_are_uniform() -> None:
    trellis = Trellis(3, (4, 8))
    assert count_topologies(trellis) == 99
    rng = np.random.default_rng(0)
    counts = Counter(sample_topology(trellis, rng) for _ in range(60 * 99))
    assert len(counts) == 99
    assert abs(chi_square(counts, list(counts))) < 4


@pytest.mark.slow
def test_upsamplers_and_skips_are_uniform() -> None:
    upsamplers, skips = ("bilinear", "pixel_dcl", "carafe"), ("none", "add", "concat")
    space = make_space(
        network={"layers": 4, "strides": [4, 8], "down_layers": 2},
        resolution={"upsamplers": upsamplers, "skips": skips},
        decoder={"name": "classifier"},
    )
    drawn = [sample_genotype(space, seed).network for seed in range(1200)]
    pairs = Counter((of.upsamplers[0], of.skips[0]) for of in drawn if of.upsamplers)
    assert abs(chi_square(pairs, list(product(upsamplers, skips)))) < 4


def test_sampled_genotypes_are_complete_and_belong_to_their_space() -> None:
    space = make_space(
        cell={"blocks": 4},
        network={"layers": 6, "strides": [2, 4, 8], "filter_multiplier": 3, "moves": ["same", "down"]},
        stem={"channels": [8], "strides": [2]},
        decoder={"filters": 7},
        network_batch_norm={"eps": 0.5},
    )
    paths = set(paths_of(space.trellis))
    for seed in range(40):
        genotype = sample_genotype(space, seed)
        assert genotype.levels in paths
        assert len(genotype.cell) == 4
        assert all(len({edge.input for edge in block}) == 2 for block in genotype.cell)
        assert genotype.network.filter_multiplier == 3
        assert genotype.stem == space.stem
        assert genotype.decoder.filters == space.decoder.filters == 7
        assert genotype.batch_norm == space.network_batch_norm
        assert genotype.source == {"space": "test", "sampled": "uniform over paths and cells", "seed": seed}
        assert Genotype.parse(genotype.to_dict()) == genotype
