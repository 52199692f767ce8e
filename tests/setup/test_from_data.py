"""What is proposed for data that nobody has looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.data_sets import write_folder
from helpers.errors import check_line
from helpers.tiny_runs import DATA as RETRAIN_DATA
from helpers.tiny_runs import GENOTYPE, SPACE, call, retrain_settings, rows, write_config

from autoseg.cli.main import run
from autoseg.config.base import merge
from autoseg.config.training import RetrainSchedule, SearchSchedule
from autoseg.data.dataset import open_dataset
from autoseg.engine.accumulation import steps_in_epoch
from autoseg.setup.from_data import LEAST_STEPS, QUICK_STEPS, guide, is_slow, propose
from autoseg.space.groups import BatchNormSpec

SEARCH = SearchSchedule(epochs=12, arch_start_epoch=4, batch_size=8, crop=(96, 96))
RETRAIN = RetrainSchedule(epochs=60, batch_size=8, crop=(96, 96))


def test_what_fits_stays() -> None:
    assert propose("search", SEARCH, (120, 160), 367, (), quick=False)[0] == {}
    assert propose("retrain", RETRAIN, (96, 96), 367, (), quick=False)[0] == {}


def test_a_crop_is_no_larger_than_the_images() -> None:
    settings = propose("retrain", RETRAIN, (40, 400), 367, (), quick=False)[0]
    assert settings == {"crop": (48, 96)}  # multiples of 16
    assert propose("retrain", RETRAIN, (20, 20), 367, (), quick=False)[0] == {"crop": (32, 32)}


def test_a_crop_that_sees_little_is_said() -> None:
    settings, reasons = propose("retrain", RETRAIN, (1024, 2048), 367, (), quick=False)
    assert settings == {}
    assert reasons[0].startswith("retrain.crop [96, 96] sees little of images of about 1024x2048: ")
    assert propose("retrain", RETRAIN, (360, 480), 367, (), quick=False)[1] == []
    assert propose("retrain", RETRAIN, (1024, 2048), 367, ("crop",), quick=False)[1] == []


def test_few_images_make_small_batches_and_many_epochs() -> None:
    settings = propose("search", SEARCH, (120, 160), 10, (), quick=False)[0]
    assert settings["batch_size"] == 5  # as many as a half has
    assert settings["epochs"] == LEAST_STEPS["search"]  # of one step each
    assert settings["arch_start_epoch"] == LEAST_STEPS["search"] // 3  # the same share as before
    assert settings["validate_every"] == LEAST_STEPS["search"] // 20


@pytest.mark.parametrize(("momentum", "proposed"), [(3e-4, 0.1), (0.05, 0.05)])
def test_statistics_are_of_the_run(momentum: float, proposed: float) -> None:
    """Auto-DeepLab's momentum would leave a short run's BatchNorm with what it began with."""
    norm = {"eps": 1e-3, "momentum": momentum}
    genotype = merge(GENOTYPE, {"batch_norm": norm, "source": {"space": "auto_deeplab"}})
    config = retrain_settings(genotype, RETRAIN_DATA, overrides={"retrain": {"epochs": 60, "batch_size": 2}})
    guided, reasons = guide(config, open_dataset(config.data, "train"), {"epochs", "batch_size", "crop"})
    assert guided.architecture.batch_norm == BatchNormSpec(eps=1e-3, momentum=proposed)
    assert ["momentum" in reason for reason in reasons] == ([True] if proposed != momentum else [])


@pytest.mark.parametrize(("momentum", "slow"), [(0.05, True), (0.1, False)])
def test_a_momentum_that_is_pytorchs_already_is_not_too_slow(momentum: float, slow: bool) -> None:
    """However short the run: it could get no quicker."""
    assert is_slow(momentum, batches=20) == slow


@pytest.mark.parametrize("images", [16, 30, 3000])
@pytest.mark.parametrize("quick", [False, True])
def test_steps_are_of_accumulated_batches(quick: bool, images: int) -> None:
    """As many as with a batch so many times as large, and whole ones."""
    parts = RETRAIN.model_copy(update={"accumulate": 4, "batch_size": 2})
    settings = propose("retrain", parts, (120, 160), images, {"batch_size"}, quick)[0]
    whole = RETRAIN.model_copy(update={"batch_size": 8})
    assert settings == propose("retrain", whole, (120, 160), images, {"batch_size"}, quick)[0]
    if quick:
        assert steps_in_epoch(images // 2, parts.model_copy(update=settings), "retrain") > 0


def test_what_the_user_set_stays() -> None:
    named = {"epochs", "batch_size", "crop", "arch_start_epoch", "validate_every", "max_steps_per_epoch", "val_images"}
    for quick in (False, True):
        assert propose("search", SEARCH, (40, 40), 10, named, quick)[0] == {}


@pytest.mark.parametrize("images", [4, 30, 3000])
@pytest.mark.parametrize(("kind", "schedule"), [("search", SEARCH), ("retrain", RETRAIN)])
def test_a_first_look_has_few_steps(kind: str, schedule: SearchSchedule | RetrainSchedule, images: int) -> None:
    settings = propose(kind, schedule, (120, 160), images, (), quick=True)[0]
    of_weights = images // 2 if kind == "search" else images
    steps = min(max(1, of_weights // settings["batch_size"]), settings.get("max_steps_per_epoch", 10**9))
    assert QUICK_STEPS[kind] / 2 < steps * settings.get("epochs", schedule.epochs) <= QUICK_STEPS[kind]
    if kind == "search":
        assert 0 < settings.get("arch_start_epoch", SEARCH.arch_start_epoch) < settings.get("epochs", SEARCH.epochs)


@pytest.mark.slow
def test_a_first_run_on_unknown_data_needs_no_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "photos", {"train": [(40, 60)] * 6, "val": [(60, 40)] * 2}, labels=3)
    space = write_config(tmp_path / "space.yaml", SPACE)
    call("search", "--space", space, "--data", data, "--out", tmp_path / "a", "--quick", "--device", "cpu")
    said = capsys.readouterr().out
    assert "photos (" in said
    assert "6 train, 2 val, 3 classes" in said
    assert "search.crop [48, 64]: the images are about 40x60" in said
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert config["search"]["crop"] == [48, 64]
    assert config["search"]["epochs"] <= QUICK_STEPS["search"]
    assert len(rows(tmp_path / "a", "val")) >= 1
    # the same run again by its own settings, which no proposal changes
    call("search", "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert yaml.safe_load((tmp_path / "b" / "config.yaml").read_text()) == config


def test_what_a_file_of_the_users_own_says_stays(tmp_path: Path) -> None:
    genotype = merge(GENOTYPE, {"batch_norm": {"eps": 1e-3, "momentum": 3e-4}, "retrain": {"epochs": 2}})
    config = retrain_settings(genotype, RETRAIN_DATA)
    assert guide(config, open_dataset(config.data, "train"), ()) == (config, [])


@pytest.mark.slow
def test_a_run_that_was_guided_goes_on(tmp_path: Path) -> None:
    """Resumed with all of what it was started with, with some of it, and with nothing."""
    data = write_folder(tmp_path / "photos", {"train": [(40, 60)] * 6, "val": [(60, 40)] * 2}, labels=3)
    start = [
        "retrain",
        "unet",
        "--set",
        "network.width=0.03",
        "--data",
        data,
        "--out",
        tmp_path / "a",
        "--device",
        "cpu",
    ]
    call(*start, "--set", "retrain.epochs=2")
    before = (tmp_path / "a" / "config.yaml").read_bytes()
    for again in (
        [*start, "--set", "retrain.epochs=2", "--resume"],
        [*start, "--resume"],
        ["retrain", "--data", data, "--out", tmp_path / "a", "--resume"],
        ["retrain", "--out", tmp_path / "a", "--resume"],
    ):
        call(*again)
    assert (tmp_path / "a" / "config.yaml").read_bytes() == before


def test_a_setting_that_contradicts_a_proposal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "search.arch_start_epoch=11", "--set", "data.generated.train=400", "--out", str(tmp_path / "a")]
    assert run(["search", "--space", "tiny", "--data", "generated", "--quick", *given]) == 2
    check_line(capsys.readouterr().err, "setting-invalid", "search", "arch_start_epoch", "11", "4 epochs")
