"""`autoseg check-data`: what it prints and writes, and what it leaves when it is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data_sets import write_folder
from helpers.tiny_runs import call, files_of
from PIL import Image

from autoseg.cli.main import run
from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.check import scan as scanning
from autoseg.data.dataset import open_dataset, resolve

TRAIN = 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set that is well."""
    return write_folder(tmp_path / "set", {"train": [(40, 48)] * TRAIN, "val": [(40, 48), (36, 64)]}, labels=3)


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    capsys.readouterr()
    call("check-data", *arguments)
    return capsys.readouterr().out.splitlines()


def test_classes_called_left_and_right_are_said_as_a_run_says_them(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "mirrored images swap 1 pair of classes: left_eye and right_eye (by their names; augment.flip_pairs sets it)"
    assert not any("mirrored" in line for line in printed(capsys, root))
    (root / "classes.txt").write_text("left_eye\nbright\nright_eye\n")
    lines = printed(capsys, root, "--out", tmp_path / "out")
    assert lines.count(f"  {said}") == 1
    assert json.loads((tmp_path / "out/check_data.json").read_text())["decisions"][-1] == said


@pytest.mark.slow
def test_a_set_that_is_well(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, root, "--out", tmp_path / "out")
    assert lines[0] == f"a folder of images and masks in {root}: 16 train, 2 val, 3 classes, ignore label 255"
    rows = [line.split() for line in lines]
    kinds = ["PNG", "RGB", "8", "bit", "PNG", "L", "8", "bit"]
    assert lines[2:7] == [
        "decisions:",
        "  train: train/images with train/masks; val: val/images with val/masks",
        "  3 classes from the labels that occur, 0..2; 255 beside them is ignored",
        "  images have 3 channels of uint8",
        "  mean and deviation of ImageNet",
    ]
    decisions = json.loads((tmp_path / "out/check_data.json").read_text())["decisions"]
    assert decisions == [line.strip() for line in lines[3:7]]
    assert rows[9] == ["train", "16", "48x40", "48x40", "48x40", "1", "16.2%", *kinds]
    assert rows[10] == ["val", "2", "48x40", "48x40", "64x36", "2", "16.5%", *kinds]
    assert ["label", "class", "train", "pixels", "train", "images", "val", "pixels", "val", "images"] in rows
    assert sum(row[1:2] == ["class_2"] for row in rows) == 1
    assert [line for line in lines if line.startswith("wrote")] == [
        f"wrote {tmp_path / 'out' / name}" for name in ("data.yaml", "contact_sheet.png", "check_data.json")
    ]
    assert lines[-1] == "nothing would stop a run"


@pytest.mark.slow
def test_what_is_written(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "out"
    lines = printed(capsys, root, "--out", out, "--json", tmp_path / "other.json")
    assert set(files_of(out)) == {"data.yaml", "contact_sheet.png", "check_data.json"}
    assert (tmp_path / "other.json").read_bytes() == (out / "check_data.json").read_bytes()
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
    text = (out / "data.yaml").read_text()
    assert text.startswith(f"# {lines[0]}\n# proposed by `autoseg check-data`\nroot: {root}\n")
    shown = lines[lines.index("proposed data YAML:") + 1 :]
    assert [f"  {line}" for line in text.splitlines()[2:]] == shown[: len(text.splitlines()) - 2]
    config = resolve(parse(DataConfig, data_settings(out / "data.yaml")))
    assert config == resolve(DataConfig(root=str(root)))
    assert len(open_dataset(config, "train")) == TRAIN
    again = printed(capsys, out / "data.yaml")
    assert again[0] == lines[0]


def test_nothing_is_written_unless_it_is_asked_for(root: Path, tmp_path: Path) -> None:
    before = files_of(tmp_path)
    call("check-data", root)
    assert files_of(tmp_path) == before


def test_ten_lines_a_kind_and_all_in_the_json(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(14):
        (root / f"train/images/{number}.png").write_bytes(b"nothing")
    (root / "val/masks/0.png").unlink()
    lines = printed(capsys, root, "--json", tmp_path / "all.json")
    first = lines.index("files that cannot be used: 14, which would stop a run") + 1
    assert all("cannot be read as an image" in line for line in lines[first : first + 10])
    assert lines[first].startswith("  train/images/0.png ")
    assert lines[first + 10 : first + 12] == ["  ... and 4 more", ""]
    assert "images without a mask of their own: 1, which would stop a run" in lines
    assert lines[-1] == "15 problems would stop a run"
    found = json.loads((tmp_path / "all.json").read_text())["problems"]
    unreadable = [problem["file"] for problem in found if problem["kind"] == "unreadable"]
    assert unreadable == sorted(f"train/images/{number}.png" for number in range(14))


@pytest.mark.slow
def test_settings_and_one_split(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train/images/3.png").write_bytes(b"nothing")
    lines = printed(capsys, root, "--set", "data.on_bad_file=skip", "--set", "data.classes=[a, b, c]")
    assert "files that cannot be used: 1" in lines
    assert lines[-1] == "nothing would stop a run; 1 more to look at"
    assert "  on_bad_file: skip" in lines
    assert printed(capsys, root, "--set", "data.num_classes=2")[-1] == "19 problems would stop a run"
    assert printed(capsys, root, "--split", "val")[0].endswith(": 2 val, 3 classes, ignore label 255")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["{tmp}/nowhere"], "folder-missing", ["{tmp}/nowhere", "--data"]),
        (["generated"], "no-files-to-check", ["generated"]),
        (["{tmp}/empty"], "folder-empty", ["{tmp}/empty"]),
        (["{root}", "--split", "test"], "unknown-split", ["{root}", "'test'", "train, val"]),
        (["{root}", "--set", "data.num_clases=3"], "unknown-setting", ["'num_clases'"]),
        (["{root}", "--set", "search.epochs=3"], "unknown-setting", ["'search'"]),
        (["{root}", "--json", "{tmp}/empty"], "file-is-folder", ["{tmp}/empty"]),
        (["{root}", "--json", "{tmp}/there"], "file-exists", ["{tmp}/there", "--overwrite"]),
        (["{root}", "--out", "{tmp}/there"], "folder-is-file", ["{tmp}/there", "--out"]),
        (["{root}", "--out", "{tmp}/there/below"], "folder-is-file", ["{tmp}/there", "--out"]),
        (["{root}", "--out", "{root}/own"], "file-exists", ["{root}/own", "--overwrite"]),
    ],
)
def test_what_is_wrong_is_one_line_at_once(
    arguments: list[str], code: str, named: list[str], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there").write_text("mine")
    (root / "own").mkdir()
    (root / "own/data.yaml").write_text("mine")
    before = files_of(tmp_path)
    capsys.readouterr()
    assert run(["check-data", *(argument.format(root=root, tmp=tmp_path) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.endswith(f" [{code}]\n"), captured.err
    for text in named:
        assert text.format(root=root, tmp=tmp_path) in captured.err
    assert files_of(tmp_path) == before


@pytest.mark.slow
def test_files_are_written_over_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    call("check-data", root, "--out", tmp_path / "out")
    before = files_of(tmp_path / "out")
    (tmp_path / "out/data.yaml").write_text("old")
    assert run(["check-data", str(root), "--out", str(tmp_path / "out")]) == 2
    call("check-data", root, "--out", tmp_path / "out", "--overwrite")
    assert files_of(tmp_path / "out") == before, "the same bytes for the same data"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["reading", "drawing"])
def test_a_check_that_is_stopped_leaves_no_half_file(
    place: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect = scanning.inspect_pair
    calls = []

    def stopped(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return inspect(*arguments)

    def half_drawn(figure: object, path: Path, **settings: Any) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    if place == "reading":
        monkeypatch.setattr(scanning, "inspect_pair", stopped)
    else:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", half_drawn)
    assert run(["check-data", str(root), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and "set" not in path.parts}
    assert left == (set() if place == "reading" else {"data.yaml", "check_data.json"})
    if place == "drawing":
        json.loads((tmp_path / "out/check_data.json").read_text())


def test_a_set_without_a_usable_sample_has_no_sheet(root: Path, tmp_path: Path) -> None:
    for path in root.rglob("masks/*.png"):
        Image.fromarray(np.full((40, 48), 9, np.uint8)).save(path)
    call("check-data", root, "--out", tmp_path / "out", "--set", "data.num_classes=3")
    assert set(files_of(tmp_path / "out")) == {"data.yaml", "check_data.json"}
