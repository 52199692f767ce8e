"""Whatever the user gets wrong is one line on stderr and exit status 2, and nothing is touched."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import GENOTYPE, RETRAIN, SEARCH, SPACE, files_of, write_config, write_folder

from autoseg.cli.main import run

Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail: one line, status 2, no file made, changed or lost. Returns the line."""

    def call(*arguments: object) -> str:
        before, folders = files_of(tmp_path), {path for path in tmp_path.rglob("*") if path.is_dir()}
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 2, captured.err
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("error: ")
        assert captured.out == ""
        assert files_of(tmp_path) == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
        return captured.err

    return call


@pytest.fixture
def search_arguments(tmp_path: Path) -> list[object]:
    return ["search", "--config", write_config(tmp_path / "search.yaml", SEARCH), "--out", tmp_path / "out"]


@pytest.fixture
def retrain_arguments(tmp_path: Path) -> list[object]:
    return ["retrain", "--config", write_config(tmp_path / "retrain.yaml", RETRAIN), "--out", tmp_path / "out"]


@pytest.fixture
def search_run(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "a"))


@pytest.fixture
def retrain_run(retrained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(retrained, tmp_path / "b"))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "search.optimizer.lrr=0.1"], "unknown key 'lrr' in search.optimizer"),
        (["--set", "search.optimizer.lrr=0.1"], "did you mean 'lr'?"),
        (["--set", "search.epochs=0"], "search.epochs: should be greater than or equal to 1, not 0"),
        (["--set", "search.epochs"], "write it as key.sub=value"),
        (["--set", "search.epochs=[1"], "is not a YAML value"),
        (["--set", "space.cell.operations=[sep_conv_3x4]"], "(did you mean 'sep_conv_3x3'?)"),
        (["--space", "auto_deeplap"], "unknown search space 'auto_deeplap' (did you mean 'auto_deeplab'?)"),
        (["--seed", "-1"], "seed: should be greater than or equal to 0, not -1"),
        (["--device", "tpu"], "device: should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not 'tpu'"),
        (["--set", "search.batch_size=9"], "trainA has 8 of the 16 training images, but search.batch_size is 9"),
        (["--set", "search.class_weights=[1, 2]"], "class_weights has 2 numbers, but there are 7 classes"),
        (["--data", "nowhere"], "nowhere is no folder"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
    ],
)
def test_search_settings(options: list[str], message: str, fails: Fails, search_arguments: list[object]) -> None:
    assert message in fails(*search_arguments, *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu(
    fails: Fails, search_arguments: list[object], retrain_arguments: list[object], retrain_run: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
    for arguments in (
        search_arguments,
        retrain_arguments,
        ["evaluate", retrain_run],
        ["predict", retrain_run, tmp_path / "image.png", "--out", tmp_path / "out"],
    ):
        assert "device cuda is not there on this machine; use --device cpu" in fails(*arguments, "--device", "cuda")


def test_settings_in_files(fails: Fails, search_arguments: list[object], tmp_path: Path) -> None:
    wrong = write_config(tmp_path / "wrong.yaml", SEARCH, {"search": {"epoch": 3}})
    line = fails("search", "--config", wrong, "--out", tmp_path / "out")
    assert f"unknown key 'epoch' in search ({wrong}) (did you mean 'epochs'?)" in line
    space = write_config(tmp_path / "space.yaml", SPACE, {"network": {"layer": 3}})
    line = fails("search", "--space", space, "--data", "generated", "--out", tmp_path / "out")
    assert f"unknown key 'layer' in network ({space}) (did you mean 'layers'?)" in line
    space = write_config(tmp_path / "space.yaml", SPACE, {"search": {"crops": [32, 32]}})
    line = fails("search", "--space", space, "--data", "generated", "--out", tmp_path / "out")
    assert "unknown key 'crops' in search (did you mean 'crop'?)" in line
    assert str(space) in line
    for text, message in (("search: [1\n", "is not valid YAML"), ("- 1\n", "holds no mapping"), ("", "no mapping")):
        wrong.write_text(text)
        line = fails("search", "--config", wrong, "--out", tmp_path / "out")
        assert str(wrong) in line
        assert message in line


def test_genotypes(fails: Fails, retrain_arguments: list[object], tmp_path: Path) -> None:
    newer = write_config(tmp_path / "newer.yaml", GENOTYPE, {"version": 2})
    assert f"{newer} has version 2, but this autoseg reads up to 1; update autoseg" in fails(
        "retrain", newer, "--data", "generated", "--out", tmp_path / "out"
    )
    assert "unknown genotype or network 'auto_deeplab_z'" in fails(*retrain_arguments, "auto_deeplab_z")
    assert "holds no genotype.yaml; run `autoseg decode" in fails(*retrain_arguments, tmp_path)
    assert "there are 16 training images, but retrain.batch_size is 17" in fails(
        *retrain_arguments, "--set", "retrain.batch_size=17"
    )


# --- data -------------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "image without a mask": (
        lambda root: (root / "train" / "masks" / "2.png").unlink(),
        "train/images/2.png has no mask in",
    ),
    "mask of another size": (
        lambda root: Image.new("L", (30, 41)).save(root / "val" / "masks" / "1.png"),
        "1.png is 40x40 pixels, but its mask",
    ),
    "label outside": (
        lambda root: Image.fromarray(np.full((40, 40), 47, np.uint8)).save(root / "val" / "masks" / "1.png"),
        "label 47 in val/masks/1.png, but the data set has 5 classes (0..4) and ignore label 255",
    ),
    "truncated image": (lambda root: truncate(root / "train" / "images" / "0.png"), "images/0.png cannot be read"),
    "truncated mask": (lambda root: truncate(root / "val" / "masks" / "0.png"), "masks/0.png cannot be read"),
    "no training": (lambda root: shutil.rmtree(root / "train"), "has no split 'train'"),
    "empty": (lambda root: [shutil.rmtree(root / split) for split in ("train", "val")], "is empty"),
    "missing": (lambda root: shutil.rmtree(root), "is no folder"),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
@pytest.mark.parametrize("command", ["search", "retrain"])
def test_data(command: str, damage: str, fails: Fails, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": [(40, 40)] * 6, "val": [(40, 40)] * 2}, labels=5)
    settings = {key: value for key, value in {"search": SEARCH, "retrain": RETRAIN}[command].items() if key != "data"}
    config = write_config(tmp_path / "c.yaml", settings)
    change, message = DAMAGE[damage]
    change(root)
    assert message in fails(command, "--config", config, "--data", root, "--out", tmp_path / "out")


# --- run directories --------------------------------------------------------------------------------------------------


def test_out(fails: Fails, search_arguments: list[object], search_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for out, message in (
        (search_run, "already holds a run; give another --out, or --resume"),
        (tmp_path / "full", "is not an empty directory; give another --out"),
        (tmp_path / "full" / "notes.txt", "is a file; give another --out"),
        (tmp_path / "full" / "notes.txt" / "run", "is a file; give another --out"),
    ):
        assert message in fails(*search_arguments[:-1], out)
    assert "already holds a run" in fails("retrain", "auto_deeplab_s", "--data", "generated", "--out", search_run)
    assert "is not an empty directory" in fails("demo", "--out", tmp_path / "full")


def test_resume(
    fails: Fails, search_arguments: list[object], search_run: Path, retrain_run: Path, tmp_path: Path
) -> None:
    for options, message in (
        (["--set", "search.epochs=9"], "was started with other settings (search.epochs: 3, not 9)"),
        (["--seed", "4"], "was started with other settings (seed: 0, not 4)"),
        (["--space", "tiny"], "was started with other settings (space.name: mini, not tiny)"),
        (["--set", "search.epoch=9"], "unknown key 'epoch' in search"),
    ):
        assert message in fails("search", "--out", search_run, "--resume", *options)
    assert "(retrain.epochs: 2, not 3)" in fails(
        "retrain", "--out", retrain_run, "--resume", "--set", "retrain.epochs=3"
    )
    assert "holds no run to resume" in fails("search", "--out", tmp_path / "none", "--resume")
    assert "holds a retrain, not a search" in fails("search", "--out", retrain_run, "--resume")
    assert "holds a search, not a retrain" in fails("retrain", "--out", search_run, "--resume")


def test_damaged_config(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    for path in (search_run / "config.yaml", retrain_run / "config.yaml"):
        path.write_text(path.read_text()[:200] + "\n  [")
    for arguments in (
        ["search", "--out", search_run, "--resume"],
        ["search", "--config", search_run / "config.yaml", "--out", tmp_path / "out"],
        ["decode", search_run],
        ["plot", search_run],
        ["evaluate", retrain_run],
        ["plot", retrain_run],
        ["export", retrain_run, "--format", "onnx", "--out", tmp_path / "out"],
    ):
        assert "config.yaml is not valid YAML" in fails(*arguments)
    (retrain_run / "config.yaml").write_text("seed: 1\n")
    assert "data is missing" in fails("evaluate", retrain_run)


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_checkpoints(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
    uses: list[list[object]] = [
        ["evaluate", retrain_run],
        ["predict", retrain_run, tmp_path / "image.png", "--out", tmp_path / "out"],
        ["export", retrain_run, "--format", "safetensors", "--out", tmp_path / "out"],
    ]
    best = retrain_run / "checkpoints" / "best.pt"
    whole = best.read_bytes()
    bomb = pickle.dumps({"version": 1, "kind": "retrain", "state": Bomb(tmp_path / "mark")})
    for content in (whole[: len(whole) // 2], b"", bomb):
        best.write_bytes(content)
        for arguments in uses:
            assert f"{best} is no readable checkpoint" in fails(*arguments)
    assert not (tmp_path / "mark").exists()
    shutil.copy(search_run / "checkpoints" / "best.pt", best)
    assert "is no checkpoint of a retrain" in fails("evaluate", retrain_run)
    best.unlink()
    assert "does not exist; the run has not got that far" in fails("evaluate", retrain_run)
    last = search_run / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:500])
    status = run(["search", "--out", str(search_run), "--resume"])
    assert status == 2


# --- the other commands -----------------------------------------------------------------------------------------------


def test_evaluate(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for arguments, message in (
        ([search_run], "is a search, whose network is not trained"),
        ([tmp_path / "nope"], "does not exist"),
        ([tmp_path], "holds no run (no config.yaml)"),
        ([retrain_run, "--split", "nope"], "has no split 'nope'; it has train, val, test"),
        ([retrain_run, "--checkpoint", "first"], "checkpoint must be best or last, not first"),
        ([retrain_run, "--precision", "fp8"], "precision must be float32 or bf16, not fp8"),
        (
            [retrain_run, "--device", "tpu"],
            "device: should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not 'tpu'",
        ),
        ([retrain_run, "--set", "search.epochs=3"], "unknown key 'search'"),
        ([retrain_run, "--set", "data.resize=[8, 8]"], "should be greater than or equal to 32, not 8"),
        ([retrain_run, "--out", tmp_path / "notes.txt"], "is there already; give another --out"),
        ([retrain_run, "--data", "nowhere"], "nowhere is no folder"),
    ):
        assert message in fails("evaluate", *arguments)


def test_predict(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (1, 400)).save(tmp_path / "small.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    good, out = tmp_path / "good.png", tmp_path / "out"
    for images, message in (
        ([good, tmp_path / "text.jpg"], "text.jpg cannot be read as an image"),
        ([good, tmp_path / "small.png"], "small.png is 1x400 pixels, but images need at least 8 each way"),
        ([tmp_path / "nope.png"], "nope.png does not exist"),
        ([tmp_path / "empty"], "holds no images"),
        ([], "missing argument 'images'"),
    ):
        assert message in fails("predict", retrain_run, *images, "--out", out)
    assert "is a search" in fails("predict", search_run, good, "--out", out)
    assert "precision must be float32 or bf16" in fails("predict", retrain_run, good, "--out", out, "--precision", "f")
    assert "cannot be made" in fails("predict", retrain_run, good, "--out", tmp_path / "text.jpg")


def test_decode_plot_export_and_show(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    notes = tmp_path / "notes.txt"
    for arguments, message in (
        (["decode", retrain_run], "is a retraining; give the directory of a search"),
        (["decode", search_run, "--epoch", 7], "has no epoch 7; it has 0 to 2"),
        (["decode", search_run, "--out", tmp_path / "no" / "g.yaml"], "lies in no folder that exists"),
        (["plot", "nope"], "unknown space, genotype or network 'nope'"),
        (["plot", search_run, "--format", "gif"], "format must be some of svg, png, pdf, not gif"),
        (["plot", search_run, "--out", notes], "cannot be written"),
        (["export", retrain_run, "--format", "foo", "--out", tmp_path / "x"], "unknown format 'foo'"),
        (["export", retrain_run, "--format", "json", "--out", notes], "notes.txt exists; give another path"),
        (["show", "nope"], "unknown space, genotype or network 'nope'"),
        (["show", "tiny", "--size", 8, 8], "must be at least 32"),
    ):
        assert message in fails(*arguments)
