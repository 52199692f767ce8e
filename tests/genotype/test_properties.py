"""Properties of every genotype of every kind of space."""

import numpy as np
import pytest
from helpers.spaces import KINDS, one_hot, space_of
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.files import to_yaml
from autoseg.genotype.contains import check_in_space
from autoseg.genotype.decode import decode
from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL, topology_cost
from autoseg.genotype.sample import sample_genotype
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import gamma_legal

kinds = st.sampled_from(list(KINDS))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.slow
@quick
@given(kinds, seeds)
def test_a_sampled_genotype_parses_back_and_is_in_its_space(kind: str, seed: int) -> None:
    space = space_of(kind)
    genotype = sample_genotype(space, seed)
    assert Genotype.parse(genotype.to_dict()) == genotype
    assert Genotype.parse(genotype.to_dict()).to_dict() == genotype.to_dict()
    check_in_space(genotype, space)
    assert genotype == sample_genotype(space, seed)
    to_yaml(genotype.to_dict())


@quick
@given(kinds, seeds)
def test_probabilities_of_one_decode_to_the_genotype_that_they_say(kind: str, seed: int) -> None:
    space = space_of(kind)
    genotype = sample_genotype(space, seed)
    decoded = decode(one_hot(genotype, space), name=genotype.name)
    assert decoded.model_copy(update={"source": genotype.source}) == genotype


@pytest.mark.slow
@quick
@given(st.sampled_from(["multi", "multi hourglass"]), seeds)
def test_a_budget_of_what_a_network_costs_decodes_it_too(kind: str, seed: int) -> None:
    space = space_of(kind)
    genotype = sample_genotype(space, seed)
    probs = one_hot(genotype, space)
    # the stem's feature is wider than a cell's here, and the budget counts the wider feature that a skip may join
    dearest = 1.5 * topology_cost(genotype) / PER_BILLION_A_MEGAPIXEL
    assert decode(probs, budget=dearest).network == genotype.network


@quick
@given(kinds)
def test_a_space_parses_back(kind: str) -> None:
    space = space_of(kind)
    assert SearchSpace.parse(space.to_dict()) == space


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_choice_on_the_up_path_is_drawn(kind: str) -> None:
    space = space_of(kind)
    drawn = [sample_genotype(space, seed) for seed in range(80)]
    upsamplers = {name for genotype in drawn for name in genotype.network.upsamplers}
    assert upsamplers == (set(space.resolution.upsamplers) if "resolution" in KINDS[kind] else set()) - (
        {"bilinear"} if space.resolution.upsamplers == ("bilinear",) else set()
    )
    skips = {skip for genotype in drawn for skip in genotype.network.skips}
    assert skips == (set() if space.resolution.skips == ("none",) else set(space.resolution.skips))
    decoders = {name for genotype in drawn for name in genotype.decoder.upsamplers}
    assert decoders == (set(space.decoder.upsamplers) if space.decoder_stages else set())
    assert all((genotype.up_cell is not None) == space.cell.up_cell for genotype in drawn)
    if space.gamma_sites:
        assert gamma_legal(space).any(0).all()
    assert any(np.diff([len(genotype.up_arrows) for genotype in drawn]))
