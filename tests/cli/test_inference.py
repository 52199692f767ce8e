"""The options of evaluate and predict that say how a network is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import call, files_of

from autoseg.cli.main import run
from autoseg.config import InferenceConfig
from autoseg.engine.predict import label_map, load_network


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("options", "inference"),
    [
        ([], InferenceConfig()),
        (["--scales", "0.5,0.75,1", "--fuse", "max"], InferenceConfig(scales=(0.5, 0.75, 1.0), fuse="max")),
        (["--multi-scale", "--flip"], InferenceConfig(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)),
        (["--scales", "0.7"], InferenceConfig(scales=(0.7,))),
        (["--window", "32", "40"], InferenceConfig(window=(32, 40))),
        (
            ["--window", "36", "33", "--overlap", "0.75", "--flip"],
            InferenceConfig(window=(36, 33), overlap=0.75, flip=True),
        ),
    ],
)
def test_both_commands_ask_as_told(
    options: list[str], inference: InferenceConfig, retrained: Path, photo: Path, tmp_path: Path
) -> None:
    size = ["--set", "data.generated.size=[40,48]", "--set", "data.generated.val=2"]  # larger than the windows
    call("evaluate", retrained, *options, *size, "--out", tmp_path / "e.json")
    written = json.loads((tmp_path / "e.json").read_text())
    asked = inference.to_dict()
    assert {key: written[key] for key in asked} == asked
    assert written["multi_scale"] == (len(inference.scales) > 1)
    call("predict", retrained, photo, *options, "--out", tmp_path / "out")
    labels = np.asarray(Image.open(tmp_path / "out" / "labels" / "photo.png"))
    network, config, _ = load_network(retrained)
    image = np.asarray(Image.open(photo))
    plain, expected = (
        label_map(network, image, config.data, torch.device("cpu"), how) for how in (InferenceConfig(), inference)
    )
    assert (labels == expected).mean() > 0.998  # a tie between two logits may fall either way
    assert np.array_equal(plain, expected) == (options == [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scales", "0.5;1"], "--scales 0.5;1: write numbers and commas, such as 0.5,0.75,1"),
        (["--scales", ""], "write numbers and commas"),
        (["--scales", "1,0"], "scales.1: should be greater than 0, not 0.0"),
        (["--scales", "9"], "scales.0: should be less than or equal to 8, not 9.0"),
        (["--scales", "nan"], "scales.0: should be a finite number"),
        (["--scales", "1", "--multi-scale"], "--multi-scale and --scales both name scales; give one of them"),
        (["--fuse", "median"], "fuse: should be 'mean' or 'max', not 'median'"),
        (["--overlap", "0.25"], "--overlap is of sliding windows, which are not asked for; give --window H W too"),
        (["--window", "32", "31"], "window.1: should be greater than or equal to 32, not 31"),
        (["--window", "32", "32", "--overlap", "1"], "overlap: should be less than or equal to 0.95, not 1.0"),
        (["--set", "crf.iterations=5"], "--set crf.KEY=VALUE changes a CRF that is not asked for; give --crf too"),
        (["--crf", "--set", "crf.iteration=5"], "unknown key 'iteration' in crf (did you mean 'iterations'?)"),
        (["--crf", "--set", "crf.iterations=0"], "crf.iterations: should be greater than or equal to 1, not 0"),
        (["--crf", "--set", "crf.gaussian_xy_std=0"], "crf.gaussian_xy_std: should be greater than or equal to 0.5"),
        (["--crf", "--set", "crf=5"], "crf: should be a mapping"),
        (["--set", "search.epochs=1"], "unknown key 'search' (known here: "),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_bad_values_are_one_line_and_nothing_is_written(
    command: str,
    options: list[str],
    message: str,
    retrained: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_of(tmp_path)
    arguments = [photo, "--out", tmp_path / "out"] if command == "predict" else ["--out", tmp_path / "e.json"]
    assert run([command, str(retrained), *map(str, arguments), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert files_of(tmp_path) == before
