"""The competition on the up path: names, the rows of gamma, and hourglass spaces."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from helpers.spaces import paths_of

from autoseg.registry import UPSAMPLERS
from autoseg.space.resolution import parse_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, gamma_legal, logits_shapes
from autoseg.space.trellis import Move, Node, Trellis


def make_space(**groups: Any) -> SearchSpace:
    network = {"layers": 4, "strides": [4, 8, 16], **groups.pop("network", {})}
    return SearchSpace.parse(
        {"name": "test", "cell": {"blocks": 2, **groups.pop("cell", {})}, "network": network, **groups}
    )


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_names_parse_to_themselves_with_kernel_3(name: str) -> None:
    assert parse_upsampler(name) == (name, 3)
    if "pixel_dcl" in name:
        assert parse_upsampler(f"{name}_7x7") == (name, 7)
        assert parse_upsampler(f"{name}_11x11") == (name, 11)


@pytest.mark.parametrize(
    "name", ["", "pixel_dcl_", "pixel_dcl_5", "pixel_dcl_5x", "pixel_dcl_5x5x5", "carafe_3x3", "PixelDCL"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown upsampler"):
        parse_upsampler(name)


# --- gamma ------------------------------------------------------------------------------------------------------------


def test_a_plain_space_has_no_gamma_and_says_nothing_of_it() -> None:
    space = make_space()
    assert (space.gamma_sites, space.upsamplers, space.decoder_stages, space.cells) == ((), (), (), 1)
    assert all(space.gamma_row(arrow) is None for arrow in space.trellis.arrows)
    assert set(logits_shapes(space)) == {"alpha", "beta"}
    data = space.to_dict()
    assert "resolution" not in data
    assert not {"down_layers", "paths"} & set(data["network"])
    assert "up_cell" not in data["cell"]


def test_one_row_a_level_one_an_arrow_and_one_a_stage() -> None:
    upsamplers = ["bilinear", "pixel_dcl"]
    by_level = make_space(resolution={"upsamplers": upsamplers})
    assert [site.name for site in by_level.gamma_sites] == ["up_8_4", "up_16_8"]
    by_arrow = make_space(resolution={"upsamplers": upsamplers, "shared_by": "arrow"})
    assert [site.name for site in by_arrow.gamma_sites] == [
        "layer2_8_4",
        "layer3_8_4",
        "layer3_16_8",
        "layer4_8_4",
        "layer4_16_8",
    ]
    decoder = make_space(decoder={"name": "aspp", "upsamplers": ["carafe", "bilinear"]})
    assert [site.name for site in decoder.gamma_sites] == ["decoder_16_8", "decoder_8_4"]
    assert decoder.decoder_stages == (2, 1)
    assert [decoder.decoder_row(level) for level in (2, 1)] == [0, 1]
    for space, shared in ((by_level, True), (by_arrow, False)):
        up = [arrow for arrow in space.trellis.arrows if arrow.move is Move.UP]
        assert (len({space.gamma_row(arrow) for arrow in up}) < len(up)) == shared
        for arrow in space.trellis.arrows:
            row = space.gamma_row(arrow)
            assert (row is None) == (arrow.move is not Move.UP)
            if row is not None:
                strides = (4 << arrow.source.level, 4 << arrow.target.level)
                assert space.gamma_sites[row].name.endswith("{}_{}".format(*strides))


def test_columns_are_all_upsamplers_and_only_those_of_a_site_compete_there() -> None:
    space = make_space(
        resolution={"upsamplers": ["bilinear", "pixel_dcl"]},
        decoder={"name": "aspp", "upsamplers": ["carafe", "bilinear", "nearest"]},
    )
    assert space.upsamplers == ("bilinear", "pixel_dcl", "carafe", "nearest")
    assert gamma_legal(space).tolist() == [[True, True, False, False]] * 2 + [[True, False, True, True]] * 2
    rng = np.random.default_rng(0)
    logits = {f"{name}_logits": rng.standard_normal(shape) for name, shape in logits_shapes(space).items()}
    probs = ArchProbs(space, **logits).gamma_probs
    assert probs is not None
    assert (probs[~gamma_legal(space)] == 0).all()
    np.testing.assert_allclose(probs.sum(-1), 1)
    own = np.exp(logits["gamma_logits"][2, [0, 2, 3]])
    np.testing.assert_allclose(probs[2, [0, 2, 3]], own / own.sum())


# --- the trellis of an hourglass --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "down", "levels"), [(4, 2, 3), (5, 2, 2), (7, 3, 3), (7, 5, 3), (8, 4, 5), (2, 1, 2)]
)
def test_paths_of_an_hourglass_are_all_that_go_down_then_up(layers: int, down: int, levels: int) -> None:
    trellis = Trellis(layers, [4 << level for level in range(levels)], down_layers=down)
    expected = []
    for path in product(range(levels), repeat=layers):
        steps = np.diff([0, *path])
        if (abs(steps) <= 1).all() and (steps[:down] >= 0).all() and (steps[down:] <= 0).all() and path[-1] == 0:
            expected.append(path)
    assert paths_of(trellis) == expected
    assert trellis.count_paths() == len(expected)
    on_paths = {Node(layer, level) for path in expected for layer, level in enumerate(path, start=1)}
    assert set(trellis.nodes) == on_paths
    assert trellis.legal().sum() == len(trellis.arrows)


def test_skips_come_from_where_paths_leave_a_level() -> None:
    trellis = Trellis(7, (4, 8, 16), down_layers=4)
    assert trellis.skip_sources(0) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert trellis.skip_sources(1) == [(1, 1), (2, 1), (3, 1)]
    assert trellis.skip_sources(2) == []


def test_arrows_along_a_path() -> None:
    trellis = Trellis(4, (4, 8, 16), down_layers=2)
    assert [arrow.move for arrow in trellis.arrows_along((1, 2, 1, 0))] == [Move.DOWN, Move.DOWN, Move.UP, Move.UP]


# --- snapshots --------------------------------------------------------------------------------------------------------

HOURGLASS: dict[str, Any] = {
    "network": {"layers": 5, "down_layers": 2},
    "cell": {"up_cell": True},
    "resolution": {"upsamplers": ["bilinear", "carafe"], "skips": ["none", "add", "concat"]},
    "decoder": {"name": "classifier"},
}


def test_shapes_and_cells_of_an_hourglass() -> None:
    space = make_space(**HOURGLASS)
    edges = len(space.topology.edges)
    assert logits_shapes(space) == {"alpha": (2 * edges, 8), "beta": (5, 3, 3), "gamma": (2, 2), "skip": (2, 3)}
    assert [space.cell_of(layer) for layer in range(1, 6)] == [0, 0, 1, 1, 1]
    zeros = ArchProbs.zeros(space)
    assert zeros.skip_probs is not None
    assert zeros.skip_probs.tolist() == [[1 / 3] * 3] * 2
    assert zeros.entropy() == pytest.approx({"alpha": 1, "beta": 1, "gamma": 1, "skip": 1})


def test_several_paths_have_a_sigmoid_an_arrow() -> None:
    space = make_space(network={"paths": "multi"})
    zeros = ArchProbs.zeros(space)
    assert (zeros.beta_probs == 0.5 * space.trellis.legal()).all()
    assert zeros.entropy()["beta"] == pytest.approx(1)
    beta = np.random.default_rng(0).standard_normal(zeros.beta_logits.shape) * 1000
    probs = ArchProbs(space, zeros.alpha_logits, beta).beta_probs
    assert np.isfinite(probs).all()
    legal = space.trellis.legal()
    np.testing.assert_allclose(probs[legal], (beta[legal] > 0).astype(float), atol=1e-2)
    assert (probs[~legal] == 0).all()


def test_edge_probabilities_of_both_cells_are_of_their_own_blocks() -> None:
    space = make_space(**{**HOURGLASS, "relaxation": {"pc_darts": 4}})
    rng = np.random.default_rng(1)
    logits = {f"{name}_logits": rng.standard_normal(shape) for name, shape in logits_shapes(space).items()}
    probs = ArchProbs(space, **logits).edge_probs
    assert probs is not None
    edges = len(space.topology.edges)
    assert probs.shape == (2 * edges,)
    for cell, block in product(range(2), range(2)):
        rows = [cell * edges + edge for edge in space.topology.edges_into(block)]
        assert probs[rows].sum() == pytest.approx(1)
        np.testing.assert_allclose(
            probs[rows] / probs[rows[0]], np.exp(logits["edge_logits"][rows] - logits["edge_logits"][rows[0]])
        )
