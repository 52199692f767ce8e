"""Decoding, drawing, exporting and describing through the Python API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from error_codes import raises_code
from PIL import Image
from safetensors.torch import load_file
from tiny_runs import GENOTYPE, SPACE, checkpoint, files_of, search_task, write_config

import autoseg
from autoseg.api.describe import describe
from autoseg.errors import CheckpointError, ConfigError, ExportError, GenotypeError, RunError
from autoseg.genotype.decode import decode as decode_probs
from autoseg.genotype.schema import Genotype
from autoseg.space.snapshot import ArchProbs


@pytest.fixture
def search_run(searched: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(searched, tmp_path / "search"))


@pytest.fixture
def retrain_run(retrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(retrained, tmp_path / "retrain"))


def test_every_name_that_autoseg_offers_is_there() -> None:
    for name in autoseg.__all__:
        assert callable(getattr(autoseg, name)), name
    assert set(autoseg.__all__) <= set(dir(autoseg))
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        autoseg.serach  # noqa: B018


# --- decode -----------------------------------------------------------------------------------------------------------


def test_decode_writes_what_the_last_snapshot_says(search_run: Path) -> None:
    genotype = autoseg.decode(search_run)
    probs = ArchProbs.load(search_run / "arch" / "epoch_0002.npz", search_task().space)
    expected = decode_probs(probs)
    assert (genotype.cell, genotype.network) == (expected.cell, expected.network)
    assert Genotype.load(search_run) == genotype
    source = genotype.source
    assert (source["run"], source["epoch"], source["seed"]) == (search_run.as_posix(), 2, 0)
    assert autoseg.decode(search_run) == genotype  # the same again is no conflict


def test_decode_never_writes_over_another_genotype(search_run: Path, tmp_path: Path) -> None:
    autoseg.decode(search_run)
    before = files_of(search_run)
    with raises_code(RunError, "genotype-exists", search_run / "genotype.yaml", "--out", "--overwrite"):
        autoseg.decode(search_run, epoch=0)
    assert files_of(search_run) == before
    earlier = autoseg.decode(search_run, epoch=0, out=tmp_path / "g.yaml", path_prior="paper")
    assert (earlier.source["epoch"], earlier.source["path_prior"]) == (0, "paper")
    assert Genotype.load(tmp_path / "g.yaml") == earlier
    autoseg.decode(search_run, epoch=0, overwrite=True)
    assert Genotype.load(search_run).source["epoch"] == 0


def test_decode_refuses(search_run: Path, retrained: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], str, tuple[object, ...]], ...] = (
        ({"run": retrained}, "run-kind-differs", (retrained,)),
        ({"run": search_run, "epoch": 9}, "epoch-missing", (search_run, "9", "0 to 2")),
        ({"run": search_run, "out": tmp_path / "no" / "g.yaml"}, "folder-missing", (tmp_path / "no" / "g.yaml",)),
        ({"run": search_run, "out": tmp_path}, "file-is-folder", (tmp_path,)),
    )
    for arguments, code, named in cases:
        with raises_code(RunError, code, *named):
            autoseg.decode(**arguments)
    with raises_code(GenotypeError, "unknown-path-prior", "'x'"):
        autoseg.decode(search_run, path_prior="x")
    (search_run / "arch" / "epoch_0002.npz").write_bytes(b"PK")
    with raises_code(CheckpointError, "snapshot-unreadable", "epoch_0002.npz"):
        autoseg.decode(search_run)
    shutil.rmtree(search_run / "arch")
    with raises_code(RunError, "no-epoch-yet", search_run):
        autoseg.decode(search_run)


def test_snapshots_are_read_with_numpy_alone(searched: Path) -> None:
    with np.load(searched / "arch" / "epoch_0002.npz", allow_pickle=False) as snapshot:
        alpha, beta = snapshot["alpha_probs"], snapshot["beta_probs"]
        assert snapshot["operations"].tolist() == SPACE["cell"]["operations"]
    assert np.allclose(alpha.sum(-1), 1)
    assert set(np.round(beta.sum(-1), 9).ravel()) <= {0.0, 1.0}


# --- plot -------------------------------------------------------------------------------------------------------------


def test_plot_a_search(search_run: Path) -> None:
    files = autoseg.plot(search_run)
    assert {path.parent for path in files} == {search_run / "figures"}
    assert {path.name for path in files} == {
        f"{stem}.{suffix}" for stem in ("trellis", "alpha", "history") for suffix in ("svg", "png", "pdf")
    }
    autoseg.decode(search_run)
    assert {path.stem for path in autoseg.plot(search_run)} == {"trellis", "alpha", "history", "cell"}


def test_plot_a_retraining_a_genotype_and_a_space(retrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    genotype = write_config(tmp_path / "g.yaml", GENOTYPE)
    space = write_config(tmp_path / "s.yaml", SPACE)
    for source, stems in (
        (retrained, {"path", "cell", "history"}),
        (genotype, {"path", "cell"}),
        ("auto_deeplab_s", {"path", "cell"}),
        (space, {"trellis"}),
        ("tiny", {"trellis"}),
    ):
        files = autoseg.plot(source, out / Path(source).name, ("svg", "png"))
        assert {path.name for path in files} == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")}
        for path in files:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    assert min(image.size) > 100
                    assert len(image.convert("RGB").getcolors(1 << 24)) > 3
            else:
                assert path.read_text().lstrip().startswith("<?xml")
    for formats in ((), ("gif",)):
        with raises_code(ConfigError, "unknown-format", "svg", "png", "pdf", *formats):
            autoseg.plot("tiny", tmp_path, formats)


# --- export -----------------------------------------------------------------------------------------------------------


def test_export_a_genotype_and_weights(retrained: Path, tmp_path: Path) -> None:
    autoseg.export_model(retrained, tmp_path / "g.json", "json")
    assert Genotype.load(tmp_path / "g.json") == Genotype.load(retrained)
    autoseg.export_model(retrained, tmp_path / "w.safetensors", "safetensors", checkpoint="last")
    weights = load_file(tmp_path / "w.safetensors")
    average = checkpoint(retrained)["state"]["average"]
    assert weights
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in weights.items())


def test_export_refuses(searched: Path, retrained: Path, tmp_path: Path) -> None:
    with raises_code(ExportError, "unknown-format", "'foo'", "onnx", "json"):
        autoseg.export_model(retrained, tmp_path / "x", "foo")
    with raises_code(RunError, "run-kind-differs", searched, "`autoseg decode`"):
        autoseg.export_model(searched, tmp_path / "x", "onnx")
    with raises_code(GenotypeError, "genotype-missing", searched, "genotype.yaml", "`autoseg decode"):
        autoseg.export_model(searched, tmp_path / "x", "json")
    with raises_code(ConfigError, "unknown-checkpoint", "best", "last", "first"):
        autoseg.export_model(retrained, tmp_path / "x", "onnx", checkpoint="first")
    assert not (tmp_path / "x").exists()


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_writes_into_the_run_and_over_no_other_file(retrain_run: Path, tmp_path: Path) -> None:
    result = autoseg.evaluate(retrain_run, split="test", show_progress=False)
    written = json.loads((retrain_run / "evaluation_test.json").read_text())
    assert written == result
    assert (written["images"], written["split"], len(written["confusion"])) == (3, "test", 7)
    autoseg.evaluate(retrain_run, split="test", show_progress=False)  # anew
    (tmp_path / "notes.txt").write_text("mine")
    for out, code, named in (("notes.txt", "file-exists", "notes.txt"), ("no/e.json", "folder-missing", "no")):
        with raises_code(RunError, code, tmp_path / named):
            autoseg.evaluate(retrain_run, out=tmp_path / out, show_progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_evaluate_draws_the_confusion_matrix_where_asked(retrain_run: Path, tmp_path: Path) -> None:
    autoseg.evaluate(retrain_run, split="test", show_progress=False)
    assert not list(retrain_run.rglob("confusion*"))
    autoseg.evaluate(retrain_run, split="test", plot=True, show_progress=False)
    drawn = sorted(path.name for path in (retrain_run / "figures").glob("confusion*"))
    assert drawn == ["confusion_test.pdf", "confusion_test.png", "confusion_test.svg"]
    assert "triangle" in (retrain_run / "figures" / "confusion_test.svg").read_text()
    (tmp_path / "e_confusion.svg").write_text("mine")
    with raises_code(RunError, "file-exists", tmp_path / "e_confusion.svg"):
        autoseg.evaluate(retrain_run, out=tmp_path / "e.json", plot=True, show_progress=False)
    assert (tmp_path / "e_confusion.svg").read_text() == "mine"
    assert not (tmp_path / "e.json").exists()
    (tmp_path / "e_confusion.svg").unlink()
    autoseg.evaluate(retrain_run, split="test", out=tmp_path / "e.json", plot=True, show_progress=False)
    assert (tmp_path / "e_confusion.svg").read_bytes() == (retrain_run / "figures/confusion_test.svg").read_bytes()


def test_evaluate_refuses_a_batch_of_nothing(retrain_run: Path) -> None:
    with raises_code(ConfigError, "batch-too-small", "batch_size", "0", "1"):
        autoseg.evaluate(retrain_run, batch_size=0, show_progress=False)


# --- describe ---------------------------------------------------------------------------------------------------------


def test_describe(retrained: Path, tmp_path: Path) -> None:
    (space,) = describe(write_config(tmp_path / "s.yaml", SPACE), 7, (96, 96))
    assert space["cell"] == "1 blocks, 2 edges, 3 operations"
    assert space["paths"] == "4"
    assert "at 96x96 with 7 classes" in space["supernet"]
    (network,) = describe(str(retrained), 7, (64, 64))
    assert network["layers"] == "2, path 8 4"
    config = yaml.safe_load((retrained / "config.yaml").read_text())
    parameters = sum(parameter.numel() for parameter in autoseg.load_network(retrained)[0].parameters())
    assert config["data"]["num_classes"] == 7
    assert network["network"].startswith(f"{parameters / 1e6:.2f}M parameters ({parameters:,})")
    assert network["field of view"] == "the whole image"  # ASPP pools it
