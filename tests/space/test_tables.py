"""Tables of other programs: read in any order and form, and refused with the name of the file and the array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import check_line, raises_code
from helpers.spaces import space_of
from helpers.tiny_runs import write_config

import autoseg
from autoseg.cli.main import run
from autoseg.errors import CheckpointError, ConfigError
from autoseg.genotype.decode import decode as decode_probs
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs, gamma_legal, logits_shapes
from autoseg.space.tables import read_tables

KINDS = ("plain", "hourglass", "unet decoder", "multi", "multi hourglass")


def drawn(space: SearchSpace, seed: int = 0) -> ArchProbs:
    rng = np.random.default_rng(seed)
    logits = {f"{name}_logits": rng.normal(size=shape) for name, shape in logits_shapes(space).items()}
    return ArchProbs(space, **logits)


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def all_of(probs: ArchProbs, ending: str, put: str = "") -> dict[str, np.ndarray]:
    return {f"{name}{put}": getattr(probs, f"{name}{ending}") for name in logits_shapes(probs.space)}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_probabilities_decode_alike(kind: str, tmp_path: Path) -> None:
    probs = drawn(space_of(kind))
    expected = decode_probs(probs)
    for name, arrays in (
        ("logits", all_of(probs, "_logits", "_logits")),
        ("plain", all_of(probs, "_logits")),
        ("probs", all_of(probs, "_probs", "_probs")),
        ("single", {key: value.astype(np.float32) for key, value in all_of(probs, "_probs", "_probs").items()}),
    ):
        found = read_tables(write(tmp_path / f"{name}.npz", **arrays), probs.space)
        for table in logits_shapes(probs.space):
            ours, theirs = (getattr(of, f"{table}_probs") for of in (found, probs))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert decode_probs(found) == expected
    probs.save(tmp_path / "own.npz")  # a snapshot of a search is such a file
    assert decode_probs(read_tables(tmp_path / "own.npz", probs.space)) == expected


def test_edges_of_partial_channels(tmp_path: Path) -> None:
    probs = drawn(space_of("plain", relaxation={"pc_darts": 2}))
    assert "edge" in logits_shapes(probs.space)
    found = read_tables(write(tmp_path / "t.npz", **all_of(probs, "_probs", "_probs")), probs.space)
    np.testing.assert_allclose(found.edge_probs, probs.edge_probs)  # type: ignore[arg-type]


def test_the_order_of_names_is_the_files(tmp_path: Path) -> None:
    probs = drawn(space_of("hourglass"))
    space, arrays = probs.space, all_of(probs, "_logits", "_logits")
    turned = {
        "alpha_logits": arrays["alpha_logits"][:, ::-1],
        "beta_logits": arrays["beta_logits"],
        "gamma_logits": arrays["gamma_logits"][::-1, ::-1],
        "skip_logits": np.roll(arrays["skip_logits"], 1, axis=1),
        "operations": np.array(space.cell.operations[::-1]),
        "gamma_sites": np.array([site.name for site in space.gamma_sites][::-1]),
        "upsamplers": np.array(space.upsamplers[::-1]),
        "skips": np.roll(np.array(space.resolution.skips), 1),
        "strides": np.array(space.network.strides),
    }
    found = read_tables(write(tmp_path / "t.npz", **turned), space)
    legal = {"beta_logits": space.trellis.legal(), "gamma_logits": gamma_legal(space)}
    for name, table in arrays.items():
        np.testing.assert_array_equal(getattr(found, name), np.where(legal.get(name, np.True_), table, 0))


def test_certain_choices_and_masked_places(tmp_path: Path) -> None:
    """Probabilities of 0 and 1, and infinities where the space has no arrow."""
    space = space_of("plain")
    probs = drawn(space)
    best = np.eye(len(space.cell.operations))[probs.alpha_probs.argmax(-1)]
    legal = space.trellis.legal()
    path = write(tmp_path / "t.npz", alpha_probs=best, beta_logits=np.where(legal, probs.beta_logits, -np.inf))
    found = read_tables(path, space)
    np.testing.assert_allclose(found.alpha_probs, best, atol=1e-300)
    np.testing.assert_allclose(found.beta_probs, probs.beta_probs)


def changed(arrays: dict[str, np.ndarray], **changes: Any) -> dict[str, np.ndarray]:
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing": ({"beta_logits": None}, ("beta_logits or beta_probs [layer, level, move]", "it has alpha_logits")),
    "too many": ({"gamma_logits": np.zeros((2, 2))}, ("gamma_logits is no table", "alpha, beta")),
    "twice": ({"alpha": np.zeros((2, 2))}, ("both alpha and alpha_logits",)),
    "shape": ({"alpha_logits": np.zeros((4, 3))}, ("alpha_logits has the shape [4, 3]", "[edge, operation]")),
    "nan": ({"alpha_logits": "nan"}, ("alpha_logits has a value that is not finite",)),
    "text": ({"alpha_logits": "text"}, ("alpha_logits holds <U1, not real numbers",)),
    "complex": ({"alpha_logits": "complex"}, ("alpha_logits holds complex128, not real numbers",)),
    "no probabilities": (
        {"alpha_logits": None, "alpha_probs": "logits"},
        ("alpha_probs are no probabilities", "alpha_logits"),
    ),
    "sums": ({"alpha_logits": None, "alpha_probs": "doubled"}, ("alpha_probs are no probabilities",)),
    "either": ({"alpha_logits": None, "alpha": "probs"}, ("alpha may be logits or probabilities", "alpha_probs")),
    "operations": ({"operations": np.array(["a", "b", "c"])}, ("operations are ['a', 'b', 'c']", "'none'")),
    "strides": ({"strides": np.array([8, 4])}, ("strides are [8, 4]", "4, 8")),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_names_file_and_array(case: str, tmp_path: Path) -> None:
    probs = drawn(space_of("plain"))
    changes, named = WRONG[case]
    alpha = probs.alpha_logits
    made = {
        "nan": np.where(np.arange(alpha.size).reshape(alpha.shape) == 3, np.nan, alpha),
        "text": np.full(alpha.shape, "x"),
        "complex": alpha + 1j,
        "logits": alpha,
        "doubled": 2 * probs.alpha_probs,
        "probs": probs.alpha_probs,
    }
    changes = {key: made[value] if isinstance(value, str) else value for key, value in changes.items()}
    path = write(tmp_path / "t.npz", **changed(all_of(probs, "_logits", "_logits"), **changes))
    with raises_code(CheckpointError, "tables-wrong", path, *named):
        read_tables(path, probs.space)


def test_what_is_no_file_of_arrays(tmp_path: Path) -> None:
    space = space_of("plain")
    whole = write(tmp_path / "whole.npz", alpha=np.zeros((4, 3))).read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("alpha: 1")
    np.save(tmp_path / "one.npy", np.zeros((4, 3)))
    torch.save({"alphas": torch.zeros(2)}, tmp_path / "c.pth")
    np.savez(tmp_path / "objects.npz", alpha_logits=np.array([{"a": 1}], dtype=object))
    for name in ("damaged.npz", "text.npz", "one.npy", "c.pth", "objects.npz"):
        with raises_code(CheckpointError, "tables-unreadable", tmp_path / name, "numpy.savez", "alpha_logits"):
            read_tables(tmp_path / name, space)


# --- autoseg decode ---------------------------------------------------------------------------------------------------


def test_decoded_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = SearchSpace.load("auto_deeplab_separable")
    probs = drawn(space)
    path = write(tmp_path / "tables.npz", alpha_logits=probs.alpha_logits, beta_logits=probs.beta_logits)
    assert run(["decode", str(path), "--space", space.name, "--path-prior", "uniform"]) == 0
    assert f"wrote {tmp_path / 'tables.yaml'}; next: autoseg retrain" in capsys.readouterr().out
    genotype, expected = Genotype.load(tmp_path / "tables.yaml"), decode_probs(probs, path_prior="uniform")
    assert (genotype.cell, genotype.network) == (expected.cell, expected.network)
    assert genotype.name == "tables_auto_deeplab_separable"
    assert genotype.source["tables"] == path.as_posix()
    assert genotype.retrain["epochs"] == 4000  # what the space recommends
    again = autoseg.decode(path, space=space, path_prior="uniform", out=tmp_path / "other.yaml")
    assert (again.cell, again.retrain) == (genotype.cell, {})


def test_what_the_command_refuses(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probs = drawn(space_of("plain"))
    space = write_config(tmp_path / "space.yaml", probs.space.to_dict())
    path = write(tmp_path / "t.npz", alpha_logits=probs.alpha_logits, beta_logits=probs.beta_logits)
    cases: list[tuple[list[object], str, tuple[object, ...]]] = [
        ([path], "space-not-given", (path, "--space")),
        ([path, "--space", "tiny"], "tables-wrong", (path, "alpha_logits", "tiny")),
        ([path, "--space", "tinny"], "unknown-space", ("'tinny'", "'tiny'")),
        ([path, "--space", space, "--epoch", 2], "epoch-missing", (path, "--epoch")),
        ([searched, "--space", space], "options-conflict", (searched, "--space")),
        ([tmp_path / "none.npz", "--space", space], "file-missing", (tmp_path / "none.npz",)),
    ]
    for words, code, named in cases:
        assert run(["decode", *map(str, words)]) == 2
        check_line(capsys.readouterr().err, code, *named)
    assert {file.name for file in tmp_path.iterdir()} == {"space.yaml", "t.npz"}
    with raises_code(ConfigError, "space-not-given", path):
        autoseg.decode(path)
