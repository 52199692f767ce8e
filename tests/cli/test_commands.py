"""The whole way on the command line, on a folder of images of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.data_sets import write_folder
from helpers.tiny_runs import SPACE, call, rows, write_config
from PIL import Image

from autoseg.genotype.schema import Genotype

SET = ["--set", "search.epochs=2", "--set", "search.arch_start_epoch=1", "--set", "search.batch_size=2"]


@pytest.mark.slow
def test_from_a_folder_to_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [(40, 48), (36, 36), (48, 40), (40, 40)]
    data = write_folder(tmp_path / "data", {"train": sizes * 2, "val": sizes, "test": sizes[:3]}, labels=4)
    schedules = {
        "search": {"crop": [32, 32], "log_every": 1},
        "retrain": {"epochs": 2, "batch_size": 2, "crop": [32, 32], "optimizer": {"name": "adamw", "lr": 1e-3}},
    }
    space = write_config(tmp_path / "space.yaml", {**SPACE, **schedules})
    a, b = tmp_path / "runs" / "a", tmp_path / "runs" / "b"

    search = ["search", "--space", space, "--data", data, "--out", a, "--device", "cpu", "--seed", 2, *SET]
    call(*search)
    captured = capsys.readouterr()
    assert f"searched {a}: best val mIoU of the supernet 0." in captured.out
    assert f"next: autoseg decode {a}" in captured.out
    assert "search 4/4" in captured.err
    assert captured.out.splitlines()[:5] == [
        "data (a folder of images and masks): 8 train, 4 val, 3 test, 4 classes",
        "  data: train: train/images with train/masks; val: val/images with val/masks; test: test/images with"
        " test/masks",
        "  data: 4 classes from the labels that occur, 0..3; 255 beside them is ignored",
        "  data: images have 3 channels of uint8",
        "  data: mean and deviation of ImageNet",
    ]
    config = yaml.safe_load((a / "config.yaml").read_text())
    assert (config["seed"], config["device"], config["search"]["epochs"]) == (2, "cpu", 2)
    assert config["data"]["num_classes"] == 4
    assert config["data"]["root"] == str(data)

    call(*search, "--resume")  # the same settings again are no other settings
    assert "already" not in capsys.readouterr().err

    call("decode", a)
    out = capsys.readouterr().out
    assert out.startswith("path  ")
    assert f"wrote {a / 'genotype.yaml'}" in out
    assert Genotype.load(a).retrain == schedules["retrain"]

    call("retrain", a / "genotype.yaml", "--data", data, "--out", b, "--set", "retrain.ema_decay=0.5")
    assert f"retrained {b}: val mIoU 0." in capsys.readouterr().out
    written = yaml.safe_load((b / "config.yaml").read_text())["retrain"]
    assert (written["optimizer"]["name"], written["ema_decay"], written["epochs"]) == ("adamw", 0.5, 2)
    assert [row["step"] for row in rows(b, "val")] == [4, 8]

    call("evaluate", b, "--data", data, "--split", "test")
    out = capsys.readouterr().out
    result = json.loads((b / "evaluation_test.json").read_text())
    assert f"mIoU {result['miou']:.4f}" in out
    assert "(3 images of test)" in out
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["class_0", "class_1", "class_2", "class_3"]

    call("predict", b, data / "test" / "images", "--out", tmp_path / "predictions")
    capsys.readouterr()
    confusion = np.zeros((4, 4), dtype=int)
    for number in range(3):
        mask = np.asarray(Image.open(data / "test" / "masks" / f"{number}.png"))
        labels = np.asarray(Image.open(tmp_path / "predictions" / "labels" / f"{number}.png"))
        assert labels.shape == mask.shape
        np.add.at(confusion, (mask[mask != 255], labels[mask != 255]), 1)
    assert np.abs(confusion - np.array(result["confusion"])).sum() <= 4  # a tie between logits may fall either way

    call("plot", b, "--format", "svg")
    assert {path.name for path in (b / "figures").iterdir()} == {"path.svg", "cell.svg", "history.svg"}
    call("export", b, "--format", "json", "--out", tmp_path / "g.json")
    call("export", b, "--format", "safetensors", "--out", tmp_path / "w.safetensors")
    assert Genotype.load(tmp_path / "g.json") == Genotype.load(b)
    assert (tmp_path / "w.safetensors").stat().st_size > 1000
    call("show", b, "--classes", 4, "--size", 64, 64)
    assert "M parameters" in capsys.readouterr().out
