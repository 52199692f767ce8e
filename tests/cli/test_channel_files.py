"""Commands on images of several files, one a channel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from data.meant.build import blocks, grey, save
from helpers.tiny_runs import RETRAIN, call, write_config
from PIL import Image

from autoseg import predict
from autoseg.errors import DataError


@pytest.mark.slow
def test_a_network_learns_labels_and_leaves_with_its_channels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        mask = blocks((0, 1), number).astype(np.uint8)
        for channel in range(4):
            noise = grey(10 * number + channel) // 4
            pixels = noise + mask * 180 if channel == 3 else noise  # only the last channel shows the class
            save(tmp_path / f"set/imagesTr/case_{number}_{channel:04}.png", pixels.astype(np.uint8))
        save(tmp_path / f"set/labelsTr/case_{number}.png", mask)
    settings = {
        "data": {"layout": "auto", "root": str(tmp_path / "set"), "generated": {}},
        "retrain": {**RETRAIN["retrain"], "epochs": 3},
    }
    config = write_config(tmp_path / "c.yaml", {key: RETRAIN[key] for key in ("genotype", "device")}, settings)
    run, files = tmp_path / "run", ["*_0000", "*_0001", "*_0002", "*_0003"]
    call("retrain", "--config", config, "--out", run)
    assert f"an image is 4 files, whose channels follow each other so: {', '.join(files)}" in capsys.readouterr().out
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert {split: place["channel_files"] for split, place in data["splits"].items()} == {"train": files, "val": files}

    call("evaluate", run, "--split", "val", "--out", tmp_path / "own.json")
    call("evaluate", run, "--data", tmp_path / "set", "--split", "val", "--out", tmp_path / "other.json")
    own, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("own", "other"))
    assert own["miou"] == other["miou"]

    call("predict", run, tmp_path / "set/imagesTr", "--out", tmp_path / "predicted")
    found = sorted((tmp_path / "predicted/labels").iterdir())
    assert [file.name for file in found] == [f"case_{number}.png" for number in range(6)]
    assert Image.open(found[0]).size == (40, 32)
    with pytest.raises(DataError) as caught:
        predict(run, [tmp_path / "set/imagesTr/case_1_0002.png"], tmp_path / "none", show_progress=False)
    assert caught.value.code == "channel-missing"
    assert not (tmp_path / "none").exists()

    call("convert", tmp_path / "set", tmp_path / "plain")
    image = np.load(next((tmp_path / "plain/val/images").iterdir()))
    number = int(next((tmp_path / "plain/val/images").iterdir()).stem.removeprefix("case_"))
    assert np.array_equal(image[:, :, 0], grey(10 * number) // 4)

    onnx = pytest.importorskip("onnx")
    call("export", run, "--format", "onnx", "--out", tmp_path / "n.onnx")
    metadata = {one.key: one.value for one in onnx.load(tmp_path / "n.onnx").metadata_props}
    assert json.loads(metadata["channel_files"]) == files
    assert metadata["channel_order"] == "stored"
    assert metadata["input"].startswith(f"4 channels in the order of the files {', '.join(files)}, values of uint8")
