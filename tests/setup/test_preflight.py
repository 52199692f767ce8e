"""What is wrong with the device is said before any data is opened, by every command and function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import check_line, raises_code
from helpers.tiny_runs import (
    GENOTYPE,
    RETRAIN,
    SEARCH,
    SPACE,
    resolved,
    retrain_settings,
    search_settings,
    write_config,
)
from PIL import Image

import autoseg
from autoseg.cli.main import run
from autoseg.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")

OPENS_DATA = (
    "autoseg.setup.settings.data_settings",
    "autoseg.setup.settings.resolve",
    "autoseg.setup.start.open_dataset",
    "autoseg.api.evaluate.open_dataset",  # modules before what they import, so that they keep the real one
    "autoseg.api.plan.open_dataset",
    "autoseg.data.dataset.open_dataset",
    "autoseg.data.loading.cache.keep_samples",
    "autoseg.api.predict.find_images",
)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens data ends the test."""

    def refuse(*arguments: object, **settings: object) -> Any:
        raise AssertionError("data was opened")

    for place in OPENS_DATA:
        monkeypatch.setattr(place, refuse)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A data set of one folder without masks."""
    (tmp_path / "data" / "images").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "data" / "images" / "0.png")
    return tmp_path / "data"


def line_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command fails."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.out == ""
    return captured.err


def runs_of(tmp_path: Path, data: object) -> list[list[object]]:
    """Commands on some data."""
    space = write_config(tmp_path / "space.yaml", SPACE)
    genotype = write_config(tmp_path / "genotype.yaml", GENOTYPE)
    out = ["--data", data, "--out", tmp_path / "out"]
    return [
        ["search", "--space", space, *out],
        ["retrain", genotype, *out],
        ["plan", "--space", space, "--data", data, "--no-time"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "code", "named"),
    [
        ("cuda:7", "device-missing", ("device", "cuda:7")),
        ("mps", "device-missing", ("device", "mps", "Mac", "--device cpu", "auto")),
        ("tpu", "setting-invalid", ("device", "auto", "cpu", "cuda", "cuda:N", "cuda:1", "mps", "'tpu'")),
    ],
)
def test_a_device_comes_before_data_that_is_wrong_too(
    device: str,
    code: str,
    named: tuple[str, ...],
    broken: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for data in (tmp_path / "nowhere", broken):
        for command in runs_of(tmp_path, data):
            line = line_of(capsys, *command, "--device", device)
            check_line(line, code, *named)
            assert str(tmp_path) not in line
            with_cpu = line_of(capsys, *command, "--device", "cpu")
            assert str(data) in with_cpu or "images/0.png" in with_cpu
    assert not (tmp_path / "out").exists()


def test_no_command_opens_data_before_it_looks_at_the_device(
    no_data: None, retrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a config file too, and of a run that is resumed."""
    image = tmp_path / "image.png"
    configs = {name: write_config(tmp_path / f"{name}.yaml", settings) for name, settings in
               (("search", SEARCH), ("retrain", {**RETRAIN, "data": "nowhere"}))}  # fmt: skip
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    write_config(resumed / "config.yaml", {**resolved(SEARCH), "device": "mps"})
    for command in (
        *([*command, "--device", "mps"] for command in runs_of(tmp_path, tmp_path / "nowhere")),
        *([name, "--config", file, "--out", tmp_path / "out", "--device", "mps"] for name, file in configs.items()),
        ["search", "--out", resumed, "--resume"],
        ["evaluate", retrained, "--data", tmp_path / "nowhere", "--device", "mps"],
        ["predict", retrained, image, "--out", tmp_path / "out", "--device", "mps"],
        ["demo", "--out", tmp_path / "out", "--device", "mps"],
    ):
        check_line(line_of(capsys, *command), "device-missing", "device", "mps")
    assert not (tmp_path / "out").exists()


FUNCTIONS: dict[str, Callable[[str, Path], object]] = {
    "search": lambda device, out: autoseg.search(SPACE, "nowhere", out, overrides={"device": device}),
    "retrain": lambda device, out: autoseg.retrain(GENOTYPE, "nowhere", out, overrides={"device": device}),
    "plan": lambda device, out: autoseg.plan(SPACE, "nowhere", overrides={"device": device}),
    "demo": lambda device, out: autoseg.demo(out, overrides={"device": device}),
    "search_settings": lambda device, out: search_settings(SPACE, "nowhere", overrides={"device": device}),
    "retrain_settings": lambda device, out: retrain_settings(GENOTYPE, "nowhere", overrides={"device": device}),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_look_at_the_device_first(name: str, no_data: None, tmp_path: Path) -> None:
    with raises_code(ConfigError, "device-missing", "device", "cuda:7"):
        FUNCTIONS[name]("cuda:7", tmp_path / "out")


KINDS: dict[str, tuple[Any, Any]] = {"search": (autoseg.search, SPACE), "retrain": (autoseg.retrain, GENOTYPE)}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_precision_that_a_device_has_not_comes_before_data(kind: str, no_data: None, tmp_path: Path) -> None:
    function, source = KINDS[kind]
    setting = {"device": "cpu", kind: {"precision": "fp16"}}
    with raises_code(ConfigError, "precision-needs-gpu", f"{kind}.precision", "fp16", "cpu", "bf16", "float32"):
        function(source, "nowhere", tmp_path / "out", overrides=setting)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_crop_that_no_device_could_take_comes_before_data(kind: str, no_data: None, tmp_path: Path) -> None:
    function, source = KINDS[kind]
    with raises_code(ConfigError, "setting-invalid", f"{kind}.crop", "20000", "16384"):
        function(source, "nowhere", tmp_path / "out", overrides={"device": "cpu", kind: {"crop": [20000, 20000]}})


def test_kernels_that_a_device_has_not_come_before_data(no_data: None, tmp_path: Path) -> None:
    for function in (autoseg.search, autoseg.plan):
        with raises_code(ConfigError, "kernels-need-cuda", "search.kernels.depthwise", "triton"):
            function(SPACE, "nowhere", overrides={"device": "cpu", "search": {"kernels": {"depthwise": "triton"}}})


def test_the_demo_looks_at_both_schedules_before_it_searches(no_data: None, tmp_path: Path) -> None:
    for kind in ("search", "retrain"):
        with raises_code(ConfigError, "precision-needs-gpu", f"{kind}.precision", "fp16"):
            autoseg.demo(tmp_path / "out", overrides={"device": "cpu", kind: {"precision": "fp16"}})


@pytest.mark.parametrize(
    ("kind", "accumulate", "named"),
    [
        ("search", 3, ("4 batches", "2 or 4")),
        ("search", 5, ("4 batches", "search.batch_size", "at most 4")),
        ("retrain", 3, ("8 batches", "2 or 4")),
    ],
)
def test_accumulation_is_counted_before_an_image_is_decoded(
    kind: str,
    accumulate: int,
    named: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("autoseg.setup.start.keep_samples", lambda *_: pytest.fail("images were decoded"))
    config = write_config(tmp_path / "c.yaml", {"search": SEARCH, "retrain": RETRAIN}[kind])
    setting = f"--set={kind}.accumulate={accumulate}"
    line = line_of(capsys, kind, "--config", config, "--out", tmp_path / "out", setting)
    code = "accumulate-too-large" if accumulate == 5 else "accumulate-indivisible"
    check_line(line, code, f"{kind}.accumulate", accumulate, *named)
    assert not (tmp_path / "out").exists()


def test_other_settings_come_before_data_too(no_data: None) -> None:
    with raises_code(ConfigError, "unknown-setting", "'epoch'", "search"):
        search_settings(SPACE, "nowhere", overrides={"search": {"epoch": 1}})
    with raises_code(ConfigError, "data-not-given"):
        search_settings(SPACE)


def test_data_that_is_right_is_still_merged(tmp_path: Path) -> None:
    """The file's, what is given, the overrides, in this order."""
    config = write_config(tmp_path / "c.yaml", {**SEARCH, "data": {**SEARCH["data"], "ignore_label": 7}})
    plain = search_settings(None, None, config).data
    assert (plain.ignore_label, plain.generated.train) == (7, 16)
    more = search_settings(None, {"generated": {"train": 18}}, config, {"data": {"generated": {"val": 2}}}).data
    assert (more.ignore_label, more.generated.train, more.generated.val) == (7, 18, 2)
    with raises_code(DataError, "folder-missing", "nowhere"):
        search_settings(None, "nowhere", config)
