"""What is wrong with the device is said before any data is opened, by every command and function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import GENOTYPE, RETRAIN, SEARCH, SPACE, write_config

import autoseg
from autoseg.api.settings import retrain_settings, search_settings
from autoseg.cli.main import run
from autoseg.errors import ConfigError, DataError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")

OPENS_DATA = (
    "autoseg.api.settings.data_settings",
    "autoseg.api.settings.resolve",
    "autoseg.api.runs.open_dataset",
    "autoseg.api.plan.open_dataset",
    "autoseg.data.dataset.open_dataset",
    "autoseg.data.store.keep_samples",
    "autoseg.engine.predict.find_images",
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
    return captured.err.removeprefix("error: ").rstrip("\n")


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


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cuda:7", "device cuda:7 is not there on this machine; "),
        ("mps", "device mps is not there: it is the GPU of a Mac with Apple silicon; use --device cpu, or auto"),
        ("tpu", "device: should be auto, cpu, cuda, cuda:N (such as cuda:1) or mps, not 'tpu'"),
    ],
)
def test_a_device_comes_before_data_that_is_wrong_too(
    device: str, expected: str, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (tmp_path / "nowhere", broken):
        for command in runs_of(tmp_path, data):
            assert line_of(capsys, *command, "--device", device).startswith(expected)
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
    write_config(resumed / "config.yaml", {**SEARCH, "device": "mps"})
    for command in (
        *([*command, "--device", "mps"] for command in runs_of(tmp_path, tmp_path / "nowhere")),
        *([name, "--config", file, "--out", tmp_path / "out", "--device", "mps"] for name, file in configs.items()),
        ["search", "--out", resumed, "--resume"],
        ["evaluate", retrained, "--data", tmp_path / "nowhere", "--device", "mps"],
        ["predict", retrained, image, "--out", tmp_path / "out", "--device", "mps"],
        ["demo", "--out", tmp_path / "out", "--device", "mps"],
    ):
        assert line_of(capsys, *command).startswith("device mps is not there"), command
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
    with pytest.raises(ConfigError, match=r"^device cuda:7 is not there"):
        FUNCTIONS[name]("cuda:7", tmp_path / "out")


@pytest.mark.parametrize("kind", ["search", "retrain"])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"precision": "fp16"}, "{kind}.precision fp16 needs a CUDA GPU, but the device is cpu; use bf16 or float32"),
        ({"crop": [20000, 20000]}, "crop 20000 20000: height and width must be 32 to 16384"),
    ],
)
def test_what_a_device_cannot_do_comes_before_data(
    setting: dict[str, Any], expected: str, kind: str, no_data: None, tmp_path: Path
) -> None:
    function: Any = {"search": autoseg.search, "retrain": autoseg.retrain}[kind]
    source = {"search": SPACE, "retrain": GENOTYPE}[kind]
    with pytest.raises(ConfigError) as caught:
        function(source, "nowhere", tmp_path / "out", overrides={"device": "cpu", kind: setting})
    assert str(caught.value) == expected.format(kind=kind)


def test_kernels_that_a_device_has_not_come_before_data(no_data: None, tmp_path: Path) -> None:
    for function in (autoseg.search, autoseg.plan):
        with pytest.raises(ConfigError, match=r"^search\.kernels\.depthwise: triton needs a CUDA GPU"):
            function(SPACE, "nowhere", overrides={"device": "cpu", "search": {"kernels": {"depthwise": "triton"}}})


def test_the_demo_looks_at_both_schedules_before_it_searches(no_data: None, tmp_path: Path) -> None:
    for kind in ("search", "retrain"):
        with pytest.raises(ConfigError, match=f"^{kind}.precision fp16 needs a CUDA GPU"):
            autoseg.demo(tmp_path / "out", overrides={"device": "cpu", kind: {"precision": "fp16"}})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("search", 3),
            "search.accumulate is 3, which does not divide the 4 batches of an epoch; set it to 2 or 4, or",
        ),
        (("search", 5), "search.accumulate is 5, but an epoch has 4 batches of search.batch_size; set it to at most 4"),
        (("retrain", 3), "retrain.accumulate is 3, which does not divide the 8 batches of an epoch; set it to 2 or 4"),
    ],
)
def test_accumulation_is_counted_before_an_image_is_decoded(
    arguments: tuple[str, int],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, accumulate = arguments
    monkeypatch.setattr("autoseg.api.runs.keep_samples", lambda *_: pytest.fail("images were decoded"))
    config = write_config(tmp_path / "c.yaml", {"search": SEARCH, "retrain": RETRAIN}[kind])
    setting = f"--set={kind}.accumulate={accumulate}"
    assert line_of(capsys, kind, "--config", config, "--out", tmp_path / "out", setting).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_other_settings_come_before_data_too(no_data: None) -> None:
    with pytest.raises(ConfigError, match="unknown key 'epoch' in search"):
        search_settings(SPACE, "nowhere", overrides={"search": {"epoch": 1}})
    with pytest.raises(ConfigError, match="no data is given"):
        search_settings(SPACE)


def test_data_that_is_right_is_still_merged(tmp_path: Path) -> None:
    """The file's, what is given, the overrides, in this order."""
    config = write_config(tmp_path / "c.yaml", {**SEARCH, "data": {**SEARCH["data"], "ignore_label": 7}})
    plain = search_settings(None, None, config).data
    assert (plain.ignore_label, plain.generated.train) == (7, 16)
    more = search_settings(None, {"generated": {"train": 18}}, config, {"data": {"generated": {"val": 2}}}).data
    assert (more.ignore_label, more.generated.train, more.generated.val) == (7, 18, 2)
    with pytest.raises(DataError, match="nowhere"):
        search_settings(None, "nowhere", config)
