"""Whatever the user gets wrong is one line on stderr and exit status 2, and nothing is touched."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.data_sets import write_folder
from helpers.errors import check_line
from helpers.tiny_runs import GENOTYPE, RETRAIN, SEARCH, SPACE, files_of, write_config
from PIL import Image

from autoseg.cli.main import run

Named = tuple[object, ...]
Arguments = Sequence[object]
Fails = Callable[..., None]


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail: one line with this code and what is named, no file made, changed or lost."""

    def call(arguments: Arguments, code: str, *named: object) -> None:
        before, folders = files_of(tmp_path), {path for path in tmp_path.rglob("*") if path.is_dir()}
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 2, captured.err
        assert captured.out == ""
        assert files_of(tmp_path) == before
        assert {path for path in tmp_path.rglob("*") if path.is_dir()} == folders
        check_line(captured.err, code, *named)

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--set", "search.optimizer.lrr=0.1"], "unknown-setting", ("'lrr'", "search.optimizer", "'lr'")),
        (["--set", "search.epochs=0"], "setting-invalid", ("search.epochs", "1", "0")),
        (["--set", "search.epochs"], "assignment-invalid", ("--set search.epochs", "key.sub=value")),
        (["--set", "search.epochs=[1"], "assignment-value-unreadable", ("--set search.epochs=[1", "'[1'")),
        (["--set", "space.cell.operations=[sep_conv_3x4]"], "setting-invalid", ("'sep_conv_3x4'", "'sep_conv_3x3'")),
        (["--space", "auto_deeplap"], "unknown-space", ("'auto_deeplap'", "'auto_deeplab'")),
        (["--seed", "-1"], "setting-invalid", ("seed", "0", "-1")),
        (["--device", "tpu"], "setting-invalid", ("device", "auto", "cpu", "cuda", "cuda:N", "cuda:1", "mps", "'tpu'")),
        (["--set", "search.batch_size=9"], "batch-too-large", ("trainA", "8", "16", "search.batch_size is 9")),
        (["--set", "search.class_weights=[1, 2]"], "class-weights-number", ("class_weights", "2", "7 classes")),
        (["--data", "nowhere"], "folder-missing", ("nowhere",)),
        (["--config", "nowhere.yaml"], "file-missing", ("nowhere.yaml",)),
    ],
)
def test_search_settings(
    options: list[str], code: str, named: Named, fails: Fails, search_arguments: list[object]
) -> None:
    fails([*search_arguments, *options], code, *named)


@pytest.mark.slow
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
        fails([*arguments, "--device", "cuda"], "device-missing", "device cuda", "--device cpu")


@pytest.mark.slow
def test_settings_in_files(fails: Fails, search_arguments: list[object], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    wrong = write_config(tmp_path / "wrong.yaml", SEARCH, {"search": {"epoch": 3}})
    fails(["search", "--config", wrong, *out], "unknown-setting", "'epoch'", "search", wrong, "'epochs'")
    for place, changes, named in (
        ("network", {"network": {"layer": 3}}, ("'layer'", "'layers'")),
        ("search", {"search": {"crops": [32, 32]}}, ("'crops'", "'crop'")),
    ):
        space = write_config(tmp_path / "space.yaml", SPACE, changes)
        search = ["search", "--space", space, "--data", "generated", *out]
        fails(search, "unknown-setting", *named, place, space)
    for text, code in (
        ("search: [1\n", "file-malformed"),
        ("- 1\n", "file-without-mapping"),
        ("", "file-without-mapping"),
    ):
        wrong.write_text(text)
        fails(["search", "--config", wrong, *out], code, wrong)


@pytest.mark.slow
def test_genotypes(fails: Fails, retrain_arguments: list[object], tmp_path: Path) -> None:
    newer = write_config(tmp_path / "newer.yaml", GENOTYPE, {"version": 2})
    fails(
        ["retrain", newer, "--data", "generated", "--out", tmp_path / "out"], "version-too-new", newer, "version 2", "1"
    )
    fails([*retrain_arguments, "auto_deeplab_z"], "unknown-network", "'auto_deeplab_z'")
    fails([*retrain_arguments, tmp_path], "genotype-missing", tmp_path, "genotype.yaml", "`autoseg decode")
    fails(
        [*retrain_arguments, "--set", "retrain.batch_size=17"],
        "batch-too-large",
        "16 training images",
        "retrain.batch_size is 17",
    )


# --- data -------------------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, tuple[str, ...]]] = {
    "image without a mask": (
        lambda root: (root / "train" / "masks" / "2.png").unlink(),
        "mask-missing",
        ("train/images/2.png", "mask"),
    ),
    "mask of another size": (
        lambda root: Image.new("L", (30, 41)).save(root / "val" / "masks" / "1.png"),
        "mask-size-differs",
        ("1.png", "40x40", "mask"),
    ),
    "label outside": (
        lambda root: Image.fromarray(np.full((40, 40), 47, np.uint8)).save(root / "val" / "masks" / "1.png"),
        "labels-unclear",
        ("0..4, 47, 255", "val/masks/1.png alone holds 47", "data.ignore_label", "data.num_classes", "data.label_map"),
    ),
    "truncated image": (
        lambda root: truncate(root / "train" / "images" / "0.png"),
        "file-unreadable",
        ("images/0.png",),
    ),
    "truncated mask": (lambda root: truncate(root / "val" / "masks" / "0.png"), "file-unreadable", ("masks/0.png",)),
    "no training": (lambda root: shutil.rmtree(root / "train"), "unknown-split", ("'train'",)),
    "empty": (
        lambda root: [shutil.rmtree(root / split) for split in ("train", "val")],
        "folder-empty",
        ("data", "empty"),
    ),
    "missing": (lambda root: shutil.rmtree(root), "folder-missing", ("data",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", list(DAMAGE))
@pytest.mark.parametrize("command", ["search", "retrain"])
def test_data(command: str, damage: str, fails: Fails, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": [(40, 40)] * 6, "val": [(40, 40)] * 2}, labels=5)
    settings = {key: value for key, value in {"search": SEARCH, "retrain": RETRAIN}[command].items() if key != "data"}
    config = write_config(tmp_path / "c.yaml", settings)
    change, code, named = DAMAGE[damage]
    change(root)
    fails([command, "--config", config, "--data", root, "--out", tmp_path / "out"], code, *named)


# --- run directories --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_out(fails: Fails, search_arguments: list[object], search_run: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    fails([*search_arguments[:-1], search_run], "run-exists", search_run, "--out", "--resume")
    fails([*search_arguments[:-1], full], "folder-not-empty", full, "empty", "--out")
    for out in (full / "notes.txt", full / "notes.txt" / "run"):
        fails([*search_arguments[:-1], out], "folder-is-file", out, "is a file", "--out")
    fails(
        ["retrain", "auto_deeplab_s", "--data", "generated", "--out", search_run], "run-exists", search_run, "--resume"
    )
    fails(["demo", "--out", full], "folder-not-empty", full, "empty")


@pytest.mark.slow
def test_resume(
    fails: Fails, search_arguments: list[object], search_run: Path, retrain_run: Path, tmp_path: Path
) -> None:
    search, retrain = (["search", "--out", search_run, "--resume"], ["retrain", "--out", retrain_run, "--resume"])
    for options, difference in (
        (["--set", "search.batch_size=4"], "search.batch_size: 2, not 4"),
        (["--set", "search.epochs=9", "--set", "search.max_skipped=4"], "search.max_skipped: 10, not 4"),
        (["--seed", "4"], "seed: 0, not 4"),
        (["--space", "tiny"], "space.name: mini, not tiny"),
    ):
        fails([*search, *options], "run-settings-differ", search_run, difference, "--set search.epochs=N")
    fails([*search, "--set", "search.epoch=9"], "unknown-setting", "'epoch'", "search")
    fails([*retrain, "--set", "retrain.batch_size=3"], "run-settings-differ", retrain_run, "batch_size: 2, not 3")
    longer = write_config(tmp_path / "longer.yaml", RETRAIN, {"retrain": {"epochs": 3}})
    fails([*retrain, "--config", longer], "run-settings-differ", "retrain.epochs: 2, not 3", "--set retrain.epochs=N")
    fails([*search, "--set", "search.epochs=1"], "setting-invalid", "search", "arch_start_epoch is 1", "1 epochs")
    fails(["search", "--out", tmp_path / "none", "--resume"], "run-missing", tmp_path / "none")
    for kind, path, other in (("search", retrain_run, "retrain"), ("retrain", search_run, "search")):
        fails([kind, "--out", path, "--resume"], "run-kind-differs", path, other, kind)


@pytest.mark.slow
def test_damaged_config(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    for path in (search_run / "config.yaml", retrain_run / "config.yaml"):
        path.write_text(path.read_text()[:200] + "\n  [")
    for path, arguments in (
        (search_run, ["search", "--out", search_run, "--resume"]),
        (search_run, ["search", "--config", search_run / "config.yaml", "--out", tmp_path / "out"]),
        (search_run, ["decode", search_run]),
        (search_run, ["plot", search_run]),
        (retrain_run, ["evaluate", retrain_run]),
        (retrain_run, ["plot", retrain_run]),
        (retrain_run, ["export", retrain_run, "--format", "onnx", "--out", tmp_path / "out"]),
    ):
        fails(arguments, "file-malformed", path / "config.yaml", "YAML")
    (retrain_run / "config.yaml").write_text("seed: 1\n")
    fails(["evaluate", retrain_run], "setting-missing", "data", retrain_run / "config.yaml")


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
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
            fails(arguments, "checkpoint-damaged", best)
    assert not (tmp_path / "mark").exists()
    shutil.copy(search_run / "checkpoints" / "best.pt", best)
    fails(["evaluate", retrain_run], "checkpoint-kind-differs", best, "retrain")
    best.unlink()
    fails(["evaluate", retrain_run], "checkpoint-missing", best)
    for last in (search_run / "checkpoints").glob("last*.pt"):
        last.write_bytes(last.read_bytes()[:500])
    status = run(["search", "--out", str(search_run), "--resume"])
    assert status == 2


# --- the other commands -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluate(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cases: list[tuple[list[object], str, Named]] = [
        ([search_run], "run-kind-differs", (search_run, "`autoseg decode`")),
        ([tmp_path / "nope"], "run-missing", (tmp_path / "nope",)),
        ([tmp_path], "run-missing", (tmp_path, "config.yaml")),
        ([retrain_run, "--split", "nope"], "unknown-split", ("'nope'", "train, val, test")),
        ([retrain_run, "--checkpoint", "first"], "unknown-checkpoint", ("best", "last", "first")),
        ([retrain_run, "--precision", "fp8"], "unknown-precision", ("precision", "float32", "bf16", "fp8")),
        (
            [retrain_run, "--device", "tpu"],
            "unknown-device",
            ("device", "auto", "cpu", "cuda", "cuda:N", "cuda:1", "mps", "'tpu'"),
        ),
        ([retrain_run, "--set", "search.epochs=3"], "unknown-setting", ("'search'",)),
        ([retrain_run, "--set", "data.resize=[8, 8]"], "setting-invalid", ("resize", "32", "8")),
        ([retrain_run, "--out", tmp_path / "notes.txt"], "file-exists", (tmp_path / "notes.txt", "--out")),
        ([retrain_run, "--data", "nowhere"], "folder-missing", ("nowhere",)),
    ]
    for arguments, code, named in cases:
        fails(["evaluate", *arguments], code, *named)


@pytest.mark.slow
def test_predict(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (1, 400)).save(tmp_path / "small.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    good, out = tmp_path / "good.png", ["--out", tmp_path / "out"]
    cases: list[tuple[list[object], str, Named]] = [
        ([good, tmp_path / "text.jpg"], "file-unreadable", ("text.jpg",)),
        ([good, tmp_path / "small.png"], "image-too-small", ("small.png", "1x400", "8")),
        ([tmp_path / "nope.png"], "file-missing", ("nope.png",)),
        ([tmp_path / "empty"], "no-images", (tmp_path / "empty",)),
        ([], "", ("'images'",)),
    ]
    for images, code, named in cases:
        fails(["predict", retrain_run, *images, *out], code, *named)
    fails(["predict", search_run, good, *out], "run-kind-differs", search_run)
    fails(["predict", retrain_run, good, *out, "--precision", "f"], "unknown-precision", "precision", "float32", "bf16")
    fails(["predict", retrain_run, good, "--out", tmp_path / "text.jpg"], "file-unwritable", tmp_path / "text.jpg")


@pytest.mark.slow
def test_decode_plot_export_and_show(fails: Fails, search_run: Path, retrain_run: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    notes = tmp_path / "notes.txt"
    cases: list[tuple[list[object], str, Named]] = [
        (["decode", retrain_run], "run-kind-differs", (retrain_run,)),
        (["decode", search_run, "--epoch", 7], "epoch-missing", (search_run, "7", "0 to 2")),
        (["decode", search_run, "--out", tmp_path / "no" / "g.yaml"], "folder-missing", (tmp_path / "no" / "g.yaml",)),
        (["plot", "nope"], "unknown-name", ("'nope'",)),
        (["plot", search_run, "--format", "gif"], "unknown-format", ("svg", "png", "pdf", "gif")),
        (["plot", search_run, "--out", notes], "file-unwritable", (notes,)),
        (["export", retrain_run, "--format", "foo", "--out", tmp_path / "x"], "unknown-format", ("'foo'",)),
        (["export", retrain_run, "--format", "json", "--out", notes], "file-exists", (notes,)),
        (["show", "nope"], "unknown-name", ("'nope'",)),
        (["show", "tiny", "--size", 8, 8], "size-too-small", ("size 8 8", "32")),
    ]
    for arguments, code, named in cases:
        fails(arguments, code, *named)
