"""Images of any size through every command, and networks measured on other folders than their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.data_sets import write_folder
from helpers.tiny_runs import COMMON, GENOTYPE, SPACE, call, rows, write_config
from PIL import Image

import autoseg
from autoseg.cli.main import run
from autoseg.setup import start

SHORT: dict[str, Any] = {**COMMON, "epochs": 1, "max_steps_per_epoch": 1}
SIZES = [(8, 8), (9, 40), (31, 33), (33, 31), (33, 31), (40, 8), (64, 48)]


def retrain(folder: Path, out: Path, **settings: Any) -> Path:
    config = write_config(
        out.with_suffix(".yaml"), {"genotype": GENOTYPE, "retrain": SHORT, "device": "cpu", **settings}
    )
    call("retrain", "--config", config, "--data", folder, "--out", out)
    return out


def refused(capsys: pytest.CaptureFixture[str], code: str, *arguments: object) -> str:
    """The one line, with this code, in which a command says what is wrong."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert error.endswith(f" [{code}]\n"), error
    return error


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of seven sizes, and `net`, a network that was trained on it."""
    folder = tmp_path_factory.mktemp("mixed")
    write_folder(folder / "set", {"train": SIZES, "val": SIZES}, labels=4)
    retrain(folder / "set", folder / "net")
    return folder


@pytest.mark.slow
def test_a_search_on_images_of_many_sizes(mixed: Path, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "c.yaml", {"space": SPACE, "search": {**SHORT, "epochs": 2, "arch_start_epoch": 1}}
    )
    call("search", "--config", config, "--data", mixed / "set", "--out", tmp_path / "a", "--device", "cpu")
    assert [row["epoch"] for row in rows(tmp_path / "a", "val")] == [0, 1]


@pytest.mark.slow
def test_small_images_are_measured_as_they_are_predicted(mixed: Path, tmp_path: Path) -> None:
    """What evaluate counts is what lies in predict's label maps, which have the size of the images."""
    call("predict", mixed / "net", mixed / "set" / "val" / "images", "--out", tmp_path / "out")
    result = autoseg.evaluate(mixed / "net", out=tmp_path / "e.json", show_progress=False)
    counts = np.zeros((4, 4), dtype=int)
    for number, size in enumerate(SIZES):
        labels = np.asarray(Image.open(tmp_path / "out" / "labels" / f"{number}.png"))
        true = np.asarray(Image.open(mixed / "set" / "val" / "masks" / f"{number}.png"))
        assert labels.shape == Image.open(tmp_path / "out" / "overlays" / f"{number}.png").size[::-1] == size
        np.add.at(counts, (true[true != 255], labels[true != 255]), 1)
    assert np.abs(counts - np.array(result["confusion"])).sum() <= 4  # a tie between two logits may fall either way


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"window": (32, 32), "flip": True}])
def test_scores_do_not_depend_on_the_batches(how: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    results = [
        autoseg.evaluate(
            mixed / "net", inference=how, batch_size=size, out=tmp_path / f"{size}.json", show_progress=False
        )
        for size in (1, 2, 7)
    ]
    first, *others = results
    for result in others:
        assert {key: value for key, value in result.items() if key not in ROUNDED} == {
            key: value for key, value in first.items() if key not in ROUNDED
        }
        for key, value in first["reliability"].items():
            found = np.array(result["reliability"][key], dtype=float)
            assert np.allclose(found, np.array(value, dtype=float), atol=1e-4, equal_nan=True)
        for key in ROUNDED[:-1]:
            assert result[key] == pytest.approx(first[key], rel=1e-5)


ROUNDED = ("loss", "expected_calibration_error", "brier_score", "reliability")
"""Sums of what networks say, which PyTorch rounds otherwise for other batches."""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 40), (40, 1), (7, 8)])
def test_images_of_a_pixel_are_refused(
    size: tuple[int, int], mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command with the same code."""
    data = write_folder(tmp_path / "set", {"train": [(32, 32), (32, 32)], "val": [(32, 32)]}, labels=2)
    for part in ("images", "masks"):
        path = data / "val" / part / "0.png"
        Image.open(path).resize(size[::-1]).save(path)
    config = write_config(tmp_path / "c.yaml", {"retrain": SHORT, "genotype": GENOTYPE, "data": {"num_classes": 4}})
    image = data / "val" / "images" / "0.png"
    for command in (
        ("evaluate", mixed / "net", "--data", data),
        ("predict", mixed / "net", image, "--out", tmp_path / "out"),
        ("retrain", "--config", config, "--data", data, "--out", tmp_path / "b"),
    ):
        said = refused(capsys, "image-too-small", *command)
        assert f"0.png is {size[1]}x{size[0]} pixels" in said
        assert "at least 8" in said
    assert not (tmp_path / "out").exists()


# --- other folders ----------------------------------------------------------------------------------------------------


def binary(root: Path, foreground: int, ignored: bool = False) -> Path:
    """The same images and masks of two classes, whatever the second is written as."""
    write_folder(root, {"train": [(32, 32)] * 3, "val": [(40, 36)] * 2}, labels=2)
    for path in root.glob("*/masks/*.png"):
        mask = np.array(Image.open(path))
        border = mask == 255
        mask[border] = 0
        mask[mask == 1] = foreground
        if ignored:
            mask[border] = 255
        Image.fromarray(mask).save(path)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "measured"), [(1, 255), (255, 1), (1, 1), (255, 255)])
def test_masks_of_0_and_255_where_others_have_0_and_1(trained: int, measured: int, tmp_path: Path) -> None:
    net = retrain(binary(tmp_path / "own", trained), tmp_path / "net")
    own = autoseg.evaluate(net, show_progress=False)
    other = binary(tmp_path / "other", measured)
    for arguments in ({"data": other}, {"overrides": {"data": {"root": str(other)}}}):
        result = autoseg.evaluate(net, out=tmp_path / f"{len(str(arguments))}.json", show_progress=False, **arguments)
        assert np.sum(result["confusion"]) == 2 * 40 * 36
        assert result["confusion"] == own["confusion"]


@pytest.mark.slow
def test_an_ignore_label_beside_0_and_1_stays_one(tmp_path: Path) -> None:
    """Also where the network knows 255 as its second class; what the user says goes before what is found."""
    net = retrain(binary(tmp_path / "own", 255), tmp_path / "net")
    other = binary(tmp_path / "other", 1, ignored=True)
    result = autoseg.evaluate(net, other, show_progress=False)
    masks = [np.asarray(Image.open(path)) for path in (other / "val" / "masks").iterdir()]
    counted = [int(np.sum([mask == label for mask in masks])) for label in (0, 1)]
    assert np.sum(result["confusion"], axis=1).tolist() == counted
    assert sum(counted) < 2 * 40 * 36
    said = {"data": {"label_map": {255: 1}, "ignore_label": 254}}
    result = autoseg.evaluate(net, other, overrides=said, show_progress=False)
    assert np.sum(result["confusion"]) == 2 * 40 * 36


@pytest.mark.slow
def test_labels_and_channels_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = retrain(binary(tmp_path / "own", 1), tmp_path / "net")
    three = write_folder(tmp_path / "three", {"train": [(32, 32)], "val": [(32, 32)]}, labels=3)
    said = refused(capsys, "label-out-of-range", "evaluate", net, "--data", three)
    assert all(text in said for text in ("label 2 in val/masks/0.png", "2 classes (0..1)", "ignore label 255"))
    bands = binary(tmp_path / "bands", 1)
    for path in list(bands.glob("*/images/*.png")):
        np.save(path.with_suffix(".npy"), np.zeros((*np.asarray(Image.open(path)).shape[:2], 5), dtype=np.uint8))
        path.unlink()
    said = refused(capsys, "channels-differ", "evaluate", net, "--data", bands)
    assert all(text in said for text in ("0.npy has 5 channels", "has 3"))
    said = refused(capsys, "channels-differ", "evaluate", net, "--data", bands, "--set", "data.channels=5")
    assert all(text in said for text in ("data.channels is 5", "images of 3"))
    said = refused(capsys, "channels-differ", "predict", net, bands / "val" / "images", "--out", tmp_path / "out")
    assert all(text in said for text in ("0.npy has 5 channels", "has 3"))


# --- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two of ten files cannot be used."""
    data = write_folder(tmp_path / "set", {"train": [(32, 32)] * 6, "val": [(32, 32)] * 4}, labels=3)
    (data / "train" / "images" / "4.png").write_bytes(b"")
    (data / "val" / "masks" / "1.png").write_text("no mask")
    return data


@pytest.mark.slow
def test_files_that_are_left_out_are_listed(damaged: Path, tmp_path: Path) -> None:
    net = retrain(damaged, tmp_path / "net", data={"on_bad_file": "skip"})
    first, second = (net / "left_out.txt").read_text().splitlines()
    assert first.startswith("train/4: ")
    assert str(damaged / "train" / "images" / "4.png") in first
    assert second.startswith("val/1: ")
    assert str(damaged / "val" / "masks" / "1.png") in second
    result = autoseg.evaluate(net, show_progress=False)
    assert (result["images"], result["left_out"]) == (3, ["1"])
    assert json.loads((net / "evaluation_val.json").read_text()) == result


def test_without_such_files_there_is_no_list(mixed: Path) -> None:
    assert not (mixed / "net" / "left_out.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("quick", [False, True])
def test_the_training_images_are_opened_once(
    quick: bool, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of theirs is read then, where bad ones are left out."""
    opened: list[str] = []
    real = start.open_dataset
    monkeypatch.setattr(start, "open_dataset", lambda data, split: opened.append(split) or real(data, split))  # type: ignore[func-returns-value]
    config = write_config(
        tmp_path / "c.yaml", {"genotype": GENOTYPE, "retrain": SHORT, "device": "cpu", "data": {"on_bad_file": "skip"}}
    )
    arguments = ["--config", config, "--data", damaged, "--out", tmp_path / "net"]
    call("retrain", *arguments, *(["--quick"] if quick else []))
    assert opened == ["train", "val"]
