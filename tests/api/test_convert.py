"""`autoseg convert`: what is written is read as the data set was, whatever the data set's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.annotations.writers import WRITERS, scene
from helpers.data_sets import write_folder
from helpers.errors import raises_code
from helpers.tiny_runs import call
from PIL import Image

import autoseg
from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.dataset import open_dataset, resolve
from autoseg.errors import DataError, RunError


def given(root: Path, **settings: Any) -> ResolvedDataConfig:
    return resolve(parse(DataConfig, {**data_settings(root), **settings}))


def samples(config: ResolvedDataConfig, split: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    dataset = open_dataset(config, split)
    return {name: (dataset.load(index).image, dataset.load(index).mask) for index, name in enumerate(dataset.names)}


def check_same(root: Path, out: Path, **settings: Any) -> ResolvedDataConfig:
    """Convert, and compare every sample of what was read before and after; returns the settings after."""
    before = given(root, **settings)
    after = autoseg.convert(root, out, overrides={"data": settings}, show_progress=False)
    assert after == given(out / "data.yaml")
    assert (after.classes, after.ignore_label, after.label_map) == (before.classes, before.ignore_label, {})
    assert list(after.splits or {}) == list(before.splits or {})
    for split in before.splits or {}:
        expected, found = samples(before, split), samples(after, split)
        assert list(found) == sorted(expected)
        for name, (image, mask) in expected.items():
            assert np.array_equal(found[name][0], image), name
            assert np.array_equal(found[name][1], mask), name
            assert found[name][0].dtype == image.dtype
    return after


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_of_annotations(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path / "set")
    alone = {"train": {"annotations": "train" if form == "yolo" else "all"}}
    after = check_same(tmp_path / "set", tmp_path / "out", layout=form, splits=alone)
    assert after.classes == ("background", "cat", "dog")
    with Image.open(tmp_path / "out/train/masks/a.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), scene())


def test_several_masks_an_image(tmp_path: Path) -> None:
    write_set(tmp_path / "set", {"images/{}.png": PHOTO})
    for name, place in (("car", slice(0, 20)), ("tree", slice(20, 30))):
        mask = np.zeros((32, 40), dtype=np.uint8)
        mask[:, place] = 255
        write_set(tmp_path / "set", {f"masks/{name}/{{}}.png": mask})
    after = check_same(tmp_path / "set", tmp_path / "out", layout="parts")
    assert set(after.classes) == {"background", "car", "tree"}


RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
LABELS = np.tile(np.arange(40, dtype=np.uint8) % 3, (32, 1))
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [0, 200, 0]], dtype=np.uint8)


def write_set(root: Path, files: Mapping[str, np.ndarray], count: int = 5, **settings: Any) -> Path:
    """`count` files of each name, `{}` for a number."""
    for name, array in files.items():
        for number in range(count):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npy":
                np.save(path, array)
            else:
                Image.fromarray(array).save(path, **(settings if path.suffix == ".jpg" else {}))
    return root


TABLE = {"void": (0, 0, 0), "road": (128, 64, 128), "tree": (0, 200, 0)}
SETS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {
    "labels that are compacted": ({"images/{}.png": PHOTO, "masks/{}.png": LABELS * 9 + 1}, {}),
    "labels of 16 bits": ({"images/{}.png": PHOTO, "masks/{}.png": LABELS.astype(np.uint16) * 999}, {}),
    "minus one": ({"images/{}.png": PHOTO, "masks/{}.npy": LABELS.astype(np.int64) - 1}, {}),
    "black and white": ({"images/{}.png": PHOTO, "masks/{}.png": LABELS % 2 * 255}, {}),
    "the second class shown nowhere": ({"images/{}.png": PHOTO, "masks/{}.png": LABELS % 2 * 255},
                                       {"classes": ["a", "b"], "ignore_label": 255, "label_map": {}}),
    "colours": ({"images/{}.png": PHOTO, "masks/{}.png": COLOURS[LABELS]}, {"colours": TABLE}),
    "five channels": ({"images/{}.npy": RNG.integers(0, 2**16, (32, 40, 5), dtype=np.uint16), "masks/{}.png": LABELS},
                      {}),
    "fractions": ({"images/{}.npy": RNG.random((32, 40, 3), dtype=np.float32), "masks/{}.png": LABELS}, {}),
    "300 classes": ({"images/{}.png": PHOTO, "masks/{}.png": LABELS.astype(np.uint16) * 140}, {"num_classes": 300}),
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_every_form_of_masks_and_images(case: str, tmp_path: Path) -> None:
    files, settings = SETS[case]
    write_set(tmp_path / "set", files)
    check_same(tmp_path / "set", tmp_path / "out", **settings)


@pytest.mark.parametrize(("turned", "orientation"), [(True, "upright"), (False, "stored")])
def test_photos_that_are_turned(turned: bool, orientation: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.ascontiguousarray(LABELS.T) if turned else LABELS
    write_set(tmp_path / "set", {"images/{}.jpg": PHOTO, "masks/{}.png": mask}, exif=exif)
    assert check_same(tmp_path / "set", tmp_path / "out").orientation == orientation


def test_square_photos_keep_how_they_are_turned(tmp_path: Path) -> None:
    """No size of theirs could tell it again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    write_set(tmp_path / "set", {"images/{}.jpg": PHOTO[:, :32], "masks/{}.png": LABELS[:, :32]}, exif=exif)
    assert check_same(tmp_path / "set", tmp_path / "out", orientation="stored").orientation == "stored"


def test_sizes_stay(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train": [(40, 48)] * 3, "val": [(36, 64)]}, labels=3)
    found = autoseg.convert(root, tmp_path / "out", overrides={"data": {"resize": [32, 36]}}, show_progress=False)
    assert found.resize is None
    shapes = {image.shape[:2] for split in ("train", "val") for image, _ in samples(found, split).values()}
    assert shapes == {(40, 48), (36, 64)}


def test_a_folder_that_holds_files_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train": [(40, 40)] * 2, "val": [(40, 40)]}, labels=3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("out", "file"):
        with raises_code(RunError, "file-exists", tmp_path / place):
            autoseg.convert(root, tmp_path / place)
    assert (tmp_path / "out/a.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with raises_code(DataError, "no-files-to-check", "generated"):
        autoseg.convert("generated", tmp_path / "new")
    with raises_code(RunError, "file-unwritable", tmp_path / "file/out"):
        autoseg.convert(root, tmp_path / "file/out")


def test_nothing_is_left_of_a_set_that_cannot_be_read(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", {"train": [(40, 40)] * 4, "val": [(40, 40)]}, labels=3)
    Image.fromarray(LABELS).save(root / "val/masks/0.png")
    with raises_code(DataError, "mask-size-differs", root / "val/masks/0.png"):
        autoseg.convert(root, tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out").exists()


def test_a_test_split_without_masks_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_folder(tmp_path / "set", {"train": [(40, 40)] * 2, "val": [(40, 40)], "test": [(40, 40)]}, labels=3)
    (root / "test/masks/0.png").unlink()
    places = {split: {"images": f"{split}/images", "masks": f"{split}/masks"} for split in ("train", "val", "test")}
    found = autoseg.convert(root, tmp_path / "out", overrides={"data": {"splits": places}}, show_progress=False)
    assert list(found.splits or {}) == ["train", "val"]
    assert "split 'test' is left out: " in caplog.text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "set", {"train": [(40, 40)] * 2, "val": [(40, 40)]}, labels=3)
    call("convert", root, tmp_path / "out")
    assert capsys.readouterr().out.splitlines() == [
        "data: train: train/images with train/masks; val: val/images with val/masks",
        "data: 3 classes from the labels that occur, 0..2; 255 beside them is ignored",
        "data: images have 3 channels of uint8",
        "data: mean and deviation of ImageNet",
        "out (a folder of images and masks): 2 train, 1 val, 3 classes",
        f"wrote {tmp_path / 'out/data.yaml'}; next: autoseg check-data {tmp_path / 'out/data.yaml'}",
    ]
    call("check-data", tmp_path / "out/data.yaml")
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing would stop a run")
