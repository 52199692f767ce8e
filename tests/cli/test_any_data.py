"""Every layout, from a folder to a measured and exported network, without settings or with a YAML of a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.data_layouts import MAKERS, Source, generated
from helpers.tiny_runs import SPACE, call, checkpoint

from autoseg.errors import ConfigError
from autoseg.files import read_yaml, to_yaml

SHORT = {
    "search": ("epochs=2", "arch_start_epoch=1", "max_steps_per_epoch=1", "val_images=1"),
    "retrain": ("epochs=1", "max_steps_per_epoch=2", "val_images=1"),
}
"""Just enough to go through everything; the rest is what `--quick` proposes."""
SAID = {
    "cityscapes": ("Cityscapes", "8 train, 4 val, 19 classes", 3),
    "ade20k": ("ADE20K", "8 train, 4 val, 150 classes", 3),
    "binary": ("a folder of images and masks", "10 train, 2 val, 2 classes", 3),
    "colour_coded": ("a folder of images and masks", "8 train, 4 val, 7 classes", 3),
    "sixteen_bit": ("a folder of images and masks", "8 train, 4 val, 7 classes", 1),
}
"""What 8 and 4 pairs of seven classes are said to be, and the channels of the images."""
MOST_LINES = 10


@pytest.fixture(scope="module")
def pairs() -> Source:
    return generated((48, 64), 8, 4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKERS)
def test_a_made_data_set(layout: str, pairs: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = MAKERS[layout](pairs, tmp_path / layout)
    name, counts, channels = SAID[layout]
    check(data, tmp_path, name, counts, capsys)
    use(data, tmp_path, int(counts.split()[-2]), channels)


@pytest.mark.slow
def test_camvid(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(camvid, tmp_path, "CamVid", "367 train, 101 val, 11 classes", capsys)
    use(camvid, tmp_path, 11, 3)


@pytest.mark.slow
def test_voc(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(voc, tmp_path, "PASCAL VOC", "7 train, 3 val, 21 classes", capsys)
    use(voc, tmp_path, 21, 3)


def check(data: Path, folder: Path, name: str, counts: str, capsys: pytest.CaptureFixture[str]) -> None:
    """check-data knows it, finds nothing that would stop a run, and proposes settings that say the same again."""
    assert data.is_dir() or len(data.read_text().splitlines()) <= MOST_LINES
    call("check-data", data, "--out", folder / "checked")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{name} in ") or name.startswith("a folder")
    assert counts in first
    assert last.startswith("nothing would stop a run")
    call("check-data", folder / "checked/data.yaml")
    assert counts in capsys.readouterr().out.splitlines()[0]


def use(data: Path, folder: Path, classes: int, channels: int) -> None:
    """Search, decode, retrain, evaluate, predict and export."""
    space = folder / "space.yaml"
    space.write_text(to_yaml(SPACE), encoding="utf-8")
    for _ in range(2):  # the second time there is nothing left to do
        run("search", folder / "search", "--space", space, "--data", data, "--resume")
    call("decode", folder / "search")
    run("retrain", folder / "net", folder / "search/genotype.yaml", "--data", data)
    assert read_yaml(folder / "net/config.yaml", ConfigError)["data"]["channels"] == channels
    call("evaluate", folder / "net")
    measured: dict[str, Any] = json.loads((folder / "net/evaluation_val.json").read_text())
    assert len(measured["iou"]) == classes
    assert 0 <= measured["miou"] <= 1
    format = "pt2" if channels == 1 else "safetensors"  # the data decides of a graph only its channels
    call("export", folder / "net", "--format", format, "--out", folder / f"net.{format}")


@pytest.mark.slow
def test_two_classes_with_one_output(pairs: Source, tmp_path: Path) -> None:
    data = MAKERS["binary"](pairs, tmp_path / "data")
    space = tmp_path / "space.yaml"
    space.write_text(to_yaml(SPACE), encoding="utf-8")
    run("search", tmp_path / "search", "--space", space, "--data", data, "--set", "search.single_output=true")
    call("decode", tmp_path / "search")
    run("retrain", tmp_path / "net", tmp_path / "search", "--data", data, "--set", "retrain.single_output=true")
    for part, layer in (("search", "heads.0.classifier.weight"), ("net", "decoder.classifier.weight")):
        weights = checkpoint(tmp_path / part)["state"]["supernet" if part == "search" else "network"]
        assert [len(weights[key]) for key in weights if key.endswith(layer)] == [1]
    call("evaluate", tmp_path / "net")
    assert 0 < json.loads((tmp_path / "net/evaluation_val.json").read_text())["miou"] <= 1


def run(command: str, out: Path, *arguments: object) -> None:
    settings = [part for setting in SHORT[command] for part in ("--set", f"{command}.{setting}")]
    call(command, *arguments, "--quick", *settings, "--out", out)
