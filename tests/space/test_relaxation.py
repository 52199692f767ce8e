"""The options that change the mathematics: settings, snapshots of the edges' logits, and decoding by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.errors import CheckpointError, SearchSpaceError
from autoseg.genotype.decode import decode, decode_cell
from autoseg.space.schema import SearchSpace, load_space
from autoseg.space.snapshot import ArchProbs


def space_with(blocks: int = 2, **relaxation: Any) -> SearchSpace:
    cell = {"blocks": blocks, "operations": ["none", "skip_connect", "sep_conv_3x3"]}
    return SearchSpace.parse({"name": "one", "cell": cell, "relaxation": relaxation})


def random_probs(space: SearchSpace, seed: int) -> ArchProbs:
    rng, zeros = np.random.default_rng(seed), ArchProbs.zeros(space)
    assert zeros.edge_logits is not None
    logits = (rng.normal(size=array.shape) for array in (zeros.alpha_logits, zeros.beta_logits, zeros.edge_logits))
    return ArchProbs(space, *logits)


@pytest.mark.parametrize(
    ("relaxation", "code", "named"),
    [
        ({"pc_dart": 4}, "unknown-setting", ["'pc_dart'", "relaxation", "did you mean 'pc_darts'?"]),
        ({"pc_darts": 3}, "setting-invalid", ["relaxation.pc_darts 3", "network.filter_multiplier 8"]),
        ({"pc_darts": 0}, "setting-invalid", ["relaxation.pc_darts: ", "1, not 0"]),
        ({"pc_darts": True}, "setting-invalid", ["relaxation.pc_darts: ", "not True"]),
        ({"gdas": 10}, "setting-invalid", ["relaxation.gdas: ", "list, not 10"]),
        ({"gdas": [10, 0]}, "setting-invalid", ["relaxation.gdas.1: ", "0, not 0"]),
        ({"gdas": [10]}, "setting-missing", ["relaxation.gdas"]),
        ({"mix_before_cell": "yes"}, "setting-invalid", ["relaxation.mix_before_cell: ", "not 'yes'"]),
    ],
)
def test_mistakes_are_one_line(relaxation: dict[str, Any], code: str, named: list[str]) -> None:
    with raises_code(SearchSpaceError, code, *named):
        space_with(**relaxation)


def test_what_is_on_survives_plain_data() -> None:
    space = space_with(pc_darts=4, gdas=[10, 0.1], mix_before_cell=True)
    assert space.to_dict()["relaxation"] == {"pc_darts": 4, "gdas": [10, 0.1], "mix_before_cell": True}
    assert SearchSpace.parse(space.to_dict()) == space


def test_fast_is_auto_deeplab_with_options() -> None:
    (fast, schedules), (paper, papers) = load_space("fast"), load_space("auto_deeplab")
    assert (fast.relaxation.pc_darts, fast.relaxation.gdas, fast.relaxation.mix_before_cell) == (4, None, True)
    assert paper.relaxation == space_with().relaxation
    for part in ("cell", "stem", "head", "decoder"):
        assert getattr(fast, part) == getattr(paper, part), part
    assert fast.trellis.count_paths() == paper.trellis.count_paths()
    assert fast.decoding.filter_multiplier == paper.decoding.filter_multiplier
    assert schedules["search"]["crop"] == papers["search"]["crop"]
    assert schedules["retrain"] == papers["retrain"]


def test_edge_probs_are_a_softmax_over_the_edges_into_each_block() -> None:
    probs = random_probs(space_with(blocks=4, pc_darts=1), 0)
    assert probs.edge_probs is not None
    assert probs.edge_logits is not None
    for block in range(4):
        rows = list(probs.space.topology.edges_into(block))
        weights = np.exp(probs.edge_logits[rows])
        np.testing.assert_allclose(probs.edge_probs[rows], weights / weights.sum(), rtol=1e-12)
    assert ArchProbs.zeros(probs.space).entropy()["edge"] == pytest.approx(1)
    assert 0 < probs.entropy()["edge"] < 1


def test_a_snapshot_keeps_them_and_one_without_still_loads(tmp_path: Path) -> None:
    space, plain = space_with(pc_darts=2), space_with()
    probs = random_probs(space, 1)
    probs.save(tmp_path / "a.npz")
    assert np.array_equal(ArchProbs.load(tmp_path / "a.npz", space).edge_logits, probs.edge_logits)
    ArchProbs.zeros(plain).save(tmp_path / "b.npz")
    assert ArchProbs.load(tmp_path / "b.npz", plain).edge_logits is None
    with np.load(tmp_path / "b.npz") as file:
        assert not [name for name in file if "edge" in name]
    with raises_code(CheckpointError, "snapshot-of-other-space", tmp_path / "a.npz", "has edge_logits", "'one'"):
        ArchProbs.load(tmp_path / "a.npz", plain)
    with raises_code(CheckpointError, "snapshot-of-other-space", tmp_path / "b.npz", "lacks edge_logits", "'one'"):
        ArchProbs.load(tmp_path / "b.npz", space)


def test_edges_are_ranked_by_alpha_times_their_own_probability() -> None:
    space = space_with(blocks=2, pc_darts=2)
    alpha = np.array([[0, 0.5, 0.5], [0, 0.5, 0.5], [0.1, 0.9, 0], [0.4, 0, 0.6], [0.5, 0, 0.5]])
    edges = np.array([0.5, 0.5, 0.1, 0.5, 0.4])
    kept = [edge.input for edge in decode_cell(alpha, space, edges)[1]]
    assert kept == ["prev", "b1"]  # 0.3 and 0.2, over 0.09
    assert [edge.input for edge in decode_cell(alpha, space)[1]] == ["prev_prev", "prev"]
    logits = np.array([0, 0, -9.0, 2, 2])
    probs = ArchProbs(space, np.log(alpha + 1e-9), ArchProbs.zeros(space).beta_logits, logits)
    assert [edge.input for edge in decode(probs).cell[1]] == ["prev", "b1"]
