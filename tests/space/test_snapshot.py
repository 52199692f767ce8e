"""The snapshot of an architecture: probabilities, entropy and files."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.config.base import merge
from autoseg.errors import CheckpointError
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, logits_shapes


def make_space(**network: Any) -> SearchSpace:
    stem = network.pop("stem", [2, 1, 2])
    return SearchSpace.parse(
        {
            "name": "test",
            "cell": {"blocks": 3},
            "network": network,
            "stem": {"channels": [8] * len(stem), "strides": stem},
        }
    )


def random_probs(space: SearchSpace, seed: int, scale: float = 1.0) -> ArchProbs:
    rng = np.random.default_rng(seed)
    zeros = ArchProbs.zeros(space)
    return ArchProbs(
        space,
        scale * rng.standard_normal(zeros.alpha_logits.shape),
        scale * rng.standard_normal(zeros.beta_logits.shape),
    )


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0, 1e5])
@pytest.mark.parametrize(
    "network",
    [
        {"layers": 12},
        {"layers": 5, "strides": [4, 8], "moves": ["same", "down"]},
        {"layers": 4, "strides": [4, 8, 16], "moves": ["up", "same"]},
        {"layers": 2, "strides": [4]},
        {"layers": 7, "strides": [1, 2, 4, 8, 16, 32], "stem": [1]},
    ],
)
def test_probabilities_sum_to_one_over_legal_arrows_and_are_zero_elsewhere(
    network: dict[str, Any], scale: float
) -> None:
    space = make_space(**network)
    probs = random_probs(space, seed=1, scale=scale)
    legal = space.trellis.legal()
    assert probs.beta_probs.shape == legal.shape
    assert (probs.beta_probs[~legal] == 0).all()
    assert np.isfinite(probs.beta_probs).all()
    has_arrows = legal.any(-1)
    np.testing.assert_allclose(probs.beta_probs.sum(-1)[has_arrows], 1, rtol=1e-12)
    assert (probs.beta_probs.sum(-1)[~has_arrows] == 0).all()
    np.testing.assert_allclose(probs.alpha_probs.sum(-1), 1, rtol=1e-12)
    assert (probs.alpha_probs >= 0).all()


def test_zero_logits_give_exact_halves_and_thirds() -> None:
    probs = ArchProbs.zeros(make_space(layers=6))
    assert probs.beta_probs[0, 0].tolist() == [0, 1 / 2, 1 / 2]
    assert probs.beta_probs[5, 0].tolist() == [0, 1 / 2, 1 / 2]
    assert probs.beta_probs[5, 1].tolist() == [1 / 3, 1 / 3, 1 / 3]
    assert probs.beta_probs[5, 2].tolist() == [1 / 3, 1 / 3, 1 / 3]
    assert probs.beta_probs[5, 3].tolist() == [1 / 2, 1 / 2, 0]
    assert probs.beta_probs[0, 1:].tolist() == [[0, 0, 0]] * 3
    assert (probs.alpha_probs == 1 / 8).all()


def test_softmax_by_hand_ignores_illegal_logits() -> None:
    space = make_space(layers=2, strides=[4, 8])
    beta = np.zeros((2, 2, 3))
    beta[1, 0] = [99.0, 1.0, 2.0]  # UP is illegal at the highest resolution
    beta[1, 1] = [0.5, -0.5, 99.0]
    probs = ArchProbs(space, ArchProbs.zeros(space).alpha_logits, beta).beta_probs
    e = np.exp(1.0)
    np.testing.assert_allclose(probs[1, 0], [0, 1 / (1 + e), e / (1 + e)], rtol=1e-14)
    np.testing.assert_allclose(probs[1, 1], [e / (1 + e), 1 / (1 + e), 0], rtol=1e-14)


def test_snapshot_is_a_copy_and_stays_as_it_was() -> None:
    space = make_space(layers=3)
    alpha = ArchProbs.zeros(space).alpha_logits.copy()
    probs = ArchProbs(space, alpha, ArchProbs.zeros(space).beta_logits)
    alpha += 5.0  # as a search does that goes on in the same memory
    assert (probs.alpha_logits == 0).all()


def test_entropy_of_zeros_is_one_and_of_peaks_almost_zero() -> None:
    space = make_space(layers=12)
    assert ArchProbs.zeros(space).entropy() == pytest.approx({"alpha": 1.0, "beta": 1.0}, abs=1e-12)
    rng = np.random.default_rng(0)
    zeros = ArchProbs.zeros(space)
    # distinct logits 40 apart, so that each row has one clear winner
    alpha = 40.0 * rng.permuted(np.tile(np.arange(8.0), (len(zeros.alpha_logits), 1)), axis=1)
    beta = 40.0 * rng.permuted(np.tile(np.arange(3.0), (12, 4, 1)), axis=-1)
    peaked = ArchProbs(space, alpha, beta).entropy()
    assert 0 <= peaked["alpha"] < 1e-12
    assert 0 <= peaked["beta"] < 1e-12


def test_entropy_by_hand() -> None:
    space = make_space(layers=2, strides=[4, 8])
    beta = np.zeros((2, 2, 3))
    beta[0, 0] = [0, 0, np.log(3)]  # 1/4, 3/4: the other two nodes are undecided
    decided = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(2)
    entropy = ArchProbs(space, ArchProbs.zeros(space).alpha_logits, beta).entropy()
    assert entropy["beta"] == pytest.approx((decided + 2) / 3, abs=1e-12)


def test_entropy_where_there_is_no_choice_is_zero() -> None:
    space = SearchSpace.parse(
        {"name": "one", "cell": {"operations": ["skip_connect"]}, "network": {"layers": 3, "strides": [4]}}
    )
    assert ArchProbs.zeros(space).entropy() == {"alpha": 0.0, "beta": 0.0}


@pytest.mark.parametrize("which", ["alpha", "beta"])
def test_wrong_shapes_and_values_that_are_not_finite_are_refused(which: str) -> None:
    space = make_space(layers=3)
    zeros = ArchProbs.zeros(space)
    arrays = {"alpha": zeros.alpha_logits, "beta": zeros.beta_logits}
    short = arrays[which][:-1]
    with raises_code(CheckpointError, "snapshot-of-other-space", which, list(short.shape), list(arrays[which].shape)):
        ArchProbs(space, *{**arrays, which: short}.values())
    for value in (np.nan, np.inf, -np.inf):
        bad = arrays[which].copy()
        bad.flat[1] = value
        with raises_code(CheckpointError, "architecture-not-finite", which):
            ArchProbs(space, *{**arrays, which: bad}.values())


# --- files ------------------------------------------------------------------------------------------------------------


def test_save_and_load_return_the_same_bits(tmp_path: Path) -> None:
    space = make_space(layers=5)
    probs = random_probs(space, seed=2)
    probs.save(tmp_path / "epoch_0000.npz")
    loaded = ArchProbs.load(tmp_path / "epoch_0000.npz", space)
    assert np.array_equal(loaded.alpha_logits, probs.alpha_logits)
    assert np.array_equal(loaded.beta_logits, probs.beta_logits)
    assert loaded.alpha_logits.dtype == np.float64
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0000.npz"]


def test_numpy_alone_reads_the_file(tmp_path: Path) -> None:
    space = make_space(layers=5)
    probs = random_probs(space, seed=2)
    probs.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["alpha_probs"], probs.alpha_probs)
        assert np.array_equal(file["beta_probs"], probs.beta_probs)
        assert file["operations"].tolist() == list(space.cell.operations)
        assert file["strides"].tolist() == [4, 8, 16, 32]


@pytest.mark.parametrize(
    "other",
    [
        {"network": {"layers": 6}},
        {"network": {"layers": 5, "strides": [4, 8, 16]}},
        {"network": {"layers": 5, "strides": [2, 4, 8, 16]}, "stem": {"channels": [8], "strides": [2]}},
        {"network": {"layers": 5}, "cell": {"blocks": 4}},
        {"network": {"layers": 5}, "cell": {"blocks": 3, "operations": ["none", "skip_connect"]}},
    ],
)
def test_a_snapshot_of_another_space_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    random_probs(make_space(layers=5), seed=2).save(tmp_path / "a.npz")
    space = SearchSpace.parse({"name": "other", "cell": {"blocks": 3}, **other})
    with raises_code(CheckpointError, "snapshot-of-other-space", tmp_path / "a.npz", "'other'"):
        ArchProbs.load(tmp_path / "a.npz", space)


def test_other_order_of_operations_is_another_space(tmp_path: Path) -> None:
    space = make_space(layers=5)
    random_probs(space, seed=2).save(tmp_path / "a.npz")
    turned = {**space.to_dict(), "cell": {"blocks": 3, "operations": list(reversed(space.cell.operations))}}
    with raises_code(CheckpointError, "snapshot-of-other-space", tmp_path / "a.npz", "other operations", "'test'"):
        ArchProbs.load(tmp_path / "a.npz", SearchSpace.parse(turned))


class _Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    space = make_space(layers=5)
    trap = _Trap(tmp_path / "sprung")
    arrays = {name: np.zeros(1) for name in ("beta_logits", "operations", "strides")}
    np.savez(tmp_path / "inside.npz", alpha_logits=np.array([trap], dtype=object), **arrays)
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(trap))
    for name in ("inside.npz", "bare.npz"):
        with raises_code(CheckpointError, "snapshot-unreadable", tmp_path / name):
            ArchProbs.load(tmp_path / name, space)
    assert not (tmp_path / "sprung").exists()


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    space = make_space(layers=2, strides=[4, 8])
    random_probs(space, seed=2).save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    for length in (0, 1, 3, 4, 30, *range(64, len(whole), 97), len(whole) - 1):
        cut.write_bytes(whole[:length])
        with raises_code(CheckpointError, "snapshot-unreadable", cut):
            ArchProbs.load(cut, space)


def test_damaged_files_are_refused_or_read_right(tmp_path: Path) -> None:
    space = make_space(layers=2, strides=[4, 8])
    probs = random_probs(space, seed=2)
    probs.save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for place in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.npz").write_bytes(damaged)
        try:
            loaded = ArchProbs.load(tmp_path / "bad.npz", space)
        except CheckpointError:
            refused += 1
        else:  # the bit was in a part that nothing reads
            assert np.array_equal(loaded.alpha_logits, probs.alpha_logits)
            assert np.array_equal(loaded.beta_logits, probs.beta_logits)
    assert refused > 100


@pytest.mark.parametrize("case", ["missing", "folder", "npy", "text", "no_key", "words"])
def test_what_is_no_snapshot_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    space = make_space(layers=5)
    path = tmp_path / "a.npz"
    zeros = ArchProbs.zeros(space)
    rest = {"operations": np.array(space.cell.operations), "strides": np.array([4, 8, 16, 32])}
    if case == "folder":
        path.mkdir()
    elif case == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif case == "text":
        path.write_text("alpha: 3\n")
    elif case == "no_key":
        np.savez(path, alpha_logits=zeros.alpha_logits, **rest)
    elif case == "words":
        np.savez(path, alpha_logits=zeros.alpha_logits.astype(str), beta_logits=zeros.beta_logits, **rest)
    with raises_code(CheckpointError, "snapshot-unreadable", path):
        ArchProbs.load(path, space)


# --- the up path ------------------------------------------------------------------------------------------------------

WAY_UP: dict[str, Any] = {
    "cell": {"blocks": 2, "up_cell": True},
    "network": {"layers": 4, "strides": [4, 8], "down_layers": 2},
    "resolution": {"upsamplers": ["bilinear", "carafe"], "skips": ["none", "add"]},
    "decoder": {"name": "classifier"},
}


def up_path_probs(**changes: Any) -> ArchProbs:
    space = SearchSpace.parse(merge(merge({"name": "up"}, WAY_UP), changes))
    rng = np.random.default_rng(5)
    return ArchProbs(space, **{f"{name}_logits": rng.standard_normal(of) for name, of in logits_shapes(space).items()})


def test_gamma_and_skips_are_saved_and_read_by_numpy_alone(tmp_path: Path) -> None:
    probs = up_path_probs()
    probs.save(tmp_path / "a.npz")
    loaded = ArchProbs.load(tmp_path / "a.npz", probs.space)
    for name in logits_shapes(probs.space):
        assert np.array_equal(getattr(loaded, f"{name}_logits"), getattr(probs, f"{name}_logits"))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["upsamplers"].tolist() == ["bilinear", "carafe"]
        assert file["gamma_sites"].tolist() == ["up_8_4"]
        assert file["skips"].tolist() == ["none", "add"]
        assert np.array_equal(file["gamma_probs"], probs.gamma_probs)
        assert np.array_equal(file["skip_probs"], probs.skip_probs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"resolution": {"upsamplers": ["carafe", "bilinear"]}}, ["upsamplers"]),
        ({"resolution": {"upsamplers": ["bilinear"]}}, ["upsamplers"]),
        ({"resolution": {"shared_by": "arrow"}}, ["gamma sites"]),
        ({"resolution": {"skips": ["add", "none"]}}, ["skips"]),
        ({"resolution": {"skips": ["none"]}}, ["skips"]),
        ({"cell": {"up_cell": False}}, ["alpha", "[10, 8]", "[5, 8]"]),
    ],
)
def test_a_snapshot_of_another_up_path_is_refused(changes: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    up_path_probs().save(tmp_path / "a.npz")
    with raises_code(CheckpointError, "snapshot-of-other-space", tmp_path / "a.npz", "space 'up'", *named):
        ArchProbs.load(tmp_path / "a.npz", up_path_probs(**changes).space)


def test_a_snapshot_without_gamma_or_with_too_much_is_refused() -> None:
    probs = up_path_probs()
    with raises_code(CheckpointError, "snapshot-of-other-space", "lacks gamma_logits", "'up'", "resolution.upsamplers"):
        ArchProbs(probs.space, probs.alpha_logits, probs.beta_logits, skip_logits=probs.skip_logits)
    with raises_code(CheckpointError, "snapshot-of-other-space", "has edge_logits", "'up'", "relaxation.pc_darts"):
        ArchProbs(
            probs.space,
            probs.alpha_logits,
            probs.beta_logits,
            np.zeros(10),
            gamma_logits=probs.gamma_logits,
            skip_logits=probs.skip_logits,
        )
