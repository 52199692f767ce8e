"""The options of evaluate and predict that say how a network is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import check_line
from helpers.tiny_runs import call, files_of
from PIL import Image

from autoseg.cli.main import run
from autoseg.config.inference import InferenceConfig
from autoseg.engine.predict import label_map, load_network


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--scales", "0.5;1"], "option-invalid", ("--scales 0.5;1", "0.5,0.75,1")),
        (["--scales", ""], "argument-empty", ("--scales",)),
        (["--scales", "1,0"], "setting-invalid", ("scales.1", "0.0")),
        (["--scales", "9"], "setting-invalid", ("scales.0", "8", "9.0")),
        (["--scales", "nan"], "setting-invalid", ("scales.0", "nan")),
        (["--scales", "1", "--multi-scale"], "options-conflict", ("--multi-scale", "--scales")),
        (["--fuse", "median"], "setting-invalid", ("fuse", "'mean'", "'max'", "'median'")),
        (["--overlap", "0.25"], "option-needs-another", ("--overlap", "--window H W")),
        (["--window", "32", "31"], "setting-invalid", ("window.1", "32", "31")),
        (["--window", "32", "32", "--overlap", "1"], "setting-invalid", ("overlap", "0.95", "1.0")),
        (["--set", "crf.iterations=5"], "option-needs-another", ("--set crf.", "--crf")),
        (["--crf", "--set", "crf.iteration=5"], "unknown-setting", ("'iteration'", "crf", "'iterations'")),
        (["--crf", "--set", "crf.iterations=0"], "setting-invalid", ("crf.iterations", "1", "0")),
        (["--crf", "--set", "crf.gaussian_xy_std=0"], "setting-invalid", ("crf.gaussian_xy_std", "0.5", "0")),
        (["--crf", "--set", "crf=5"], "setting-invalid", ("crf", "5")),
        (["--set", "search.epochs=1"], "unknown-setting", ("'search'",)),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_bad_values_are_one_line_and_nothing_is_written(
    command: str,
    options: list[str],
    code: str,
    named: tuple[str, ...],
    retrained: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = files_of(tmp_path)
    arguments = [photo, "--out", tmp_path / "out"] if command == "predict" else ["--out", tmp_path / "e.json"]
    assert run([command, str(retrained), *map(str, arguments), *options]) == 2
    check_line(capsys.readouterr().err, code, *named)
    assert files_of(tmp_path) == before
