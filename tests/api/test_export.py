"""Exporting through the Python API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.errors import raises_code
from helpers.tiny_runs import call, checkpoint
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import autoseg
from autoseg.errors import ConfigError, ExportError, GenotypeError, RunError
from autoseg.genotype.schema import Genotype
from autoseg.viz.palette import palette


@pytest.mark.slow
def test_export_a_genotype_and_weights(retrained: Path, tmp_path: Path) -> None:
    autoseg.export_model(retrained, tmp_path / "g.json", "json")
    assert Genotype.load(tmp_path / "g.json") == Genotype.load(retrained)
    autoseg.export_model(retrained, tmp_path / "w.safetensors", "safetensors", checkpoint="last")
    weights = load_file(tmp_path / "w.safetensors")
    average = checkpoint(retrained)["state"]["average"]
    assert weights
    assert all(torch.equal(value, average[f"module.{key}"]) for key, value in weights.items())


DATA = {
    "mean": [0.11, 0.22, 0.33],
    "std": [0.41, 0.52, 0.63],
    "classes": ["sky", "road", "tree", "car", "person", "sign", "dog"],
    "num_classes": 7,
    "ignore_label": 200,
    "resize": [40, 48],
    "orientation": "stored",
}
"""Values that differ from each other and from every default."""


TEXTS = ("input", "channel_order", "pixel_type", "orientation", "autoseg_version")
"""Metadata that are no JSON."""


def metadata_of(file: Path) -> dict[str, Any]:
    """What a file of safetensors says, read without autoseg."""
    with safe_open(file, "pt") as opened:
        return {key: text if key in TEXTS else json.loads(text) for key, text in opened.metadata().items()}


@pytest.mark.slow
def test_the_command_writes_what_the_run_says_of_its_data(retrain_run: Path, tmp_path: Path) -> None:
    """Here as safetensors; tests/export compares the formats."""
    settings = yaml.safe_load((retrain_run / "config.yaml").read_text())
    assert all(settings["data"].get(key) != value for key, value in DATA.items() if key != "num_classes")
    settings["data"] |= DATA
    (retrain_run / "config.yaml").write_text(yaml.safe_dump(settings))
    call("export", retrain_run, "--format", "safetensors", "--out", tmp_path / "net.safetensors")
    said = metadata_of(tmp_path / "net.safetensors")
    assert {key: said[key] for key in DATA} == DATA
    assert said["genotype"] == Genotype.load(retrain_run).to_dict()
    assert (said["channels"], said["in_channels"], said["channel_order"]) == (3, 3, "RGB")
    assert (said["pixel_type"], said["divisor"], said["single_output"]) == ("uint8", 255, False)
    assert said["input"] == "RGB, values of uint8 as float32, NCHW, (x/255 - mean) / std"
    assert said["colours"] == palette(7).tolist()
    assert said["autoseg_version"] == autoseg.__version__


@pytest.mark.slow
def test_the_colours_are_those_of_predict(retrain_run: Path, tmp_path: Path) -> None:
    """Where the training masks had a palette, that one."""
    settings = yaml.safe_load((retrain_run / "config.yaml").read_text())
    settings["data"]["palette"] = [[30 * number, 7, 250 - number] for number in range(7)]
    (retrain_run / "config.yaml").write_text(yaml.safe_dump(settings))
    call("export", retrain_run, "--format", "safetensors", "--out", tmp_path / "net.safetensors")
    Image.new("RGB", (40, 36), (9, 200, 40)).save(tmp_path / "a.png")
    call("predict", retrain_run, tmp_path / "a.png", "--out", tmp_path / "out", "--labels", "classes")
    shown = np.array(Image.open(tmp_path / "out" / "labels" / "a.png").getpalette()).reshape(-1, 3)[:7]
    assert shown.tolist() == settings["data"]["palette"]
    assert metadata_of(tmp_path / "net.safetensors")["colours"] == shown.tolist()


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
