"""Images that look nearly alike across splits: planted copies are found, and nothing else is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from autoseg.config.data import DataConfig
from autoseg.data.check import scan
from autoseg.data.check.report import check_dataset
from autoseg.data.check.similar import alike, look_of
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.generated import GeneratedDataset

TRAIN, VAL = 16, 5


def picture(seed: int, size: tuple[int, int] = (96, 128)) -> Image.Image:
    """A smooth picture unlike others."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    mask = np.tile(np.arange(image.width, dtype=np.uint8) % 3, (image.height, 1))
    target = path.parents[1] / "masks" / f"{path.stem}.png"
    target.parent.mkdir(exist_ok=True)
    Image.fromarray(mask).save(target)


def write(root: Path, suffix: str = ".jpg") -> Path:
    for split, count, first in (("train", TRAIN, 0), ("val", VAL, 100)):
        for number in range(count):
            save(picture(first + number), root / f"{split}/images/{number:02}{suffix}")
    return root


def similar(root: Path) -> list[tuple[str, str]]:
    """(image of another split, image of train)"""
    found = [one for one in check_dataset(DataConfig(root=str(root))).problems if one.kind == "similar"]
    assert not any(one.stops for one in found)
    return [(one.file, one.text.split("looks nearly like ")[1].split(" of train")[0]) for one in found]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "another format": lambda image: image,
    "smaller": lambda image: image.resize((64, 48)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "one pixel further": lambda image: Image.fromarray(np.roll(np.asarray(image), 1, axis=1)),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(change: str, suffix: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set", suffix)
    assert similar(root) == []
    (root / f"val/images/03{suffix}").unlink()
    copy = f"val/images/03.{'bmp' if change == 'another format' else 'png'}"
    save(CHANGES[change](picture(7)), root / copy)
    assert similar(root) == [(copy, f"train/images/07{suffix}")]


def test_sixteen_bits_and_many_channels(tmp_path: Path) -> None:
    for split, seeds in (("train", range(TRAIN)), ("val", (3, 100, 101))):
        for number, seed in enumerate(seeds):
            path = tmp_path / f"set/{split}/images/{number}.png"
            save(picture(seed), path)
            array = np.asarray(picture(seed).convert("L")).astype(np.uint16) * 200 + 77 * (split == "val")
            Image.fromarray(array).save(path)
    assert similar(tmp_path / "set") == [("val/images/0.png", "train/images/3.png")]
    for path in (tmp_path / "set").glob("*/images/*.png"):
        grey = np.asarray(Image.open(path)).astype(np.float32)
        np.save(path.with_suffix(".npy"), np.stack([grey, grey + 1, 2 * grey, grey, grey], axis=2))
        path.unlink()
    assert similar(tmp_path / "set") == [("val/images/0.npy", "train/images/3.npy")]


def test_the_same_file_is_reported_once(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    shutil.copy(root / "train/images/07.jpg", root / "val/images/03.jpg")
    report = check_dataset(DataConfig(root=str(root)))
    assert [one.kind for one in report.problems] == ["leak"]


def test_flat_images_are_like_none(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ".png")
    for split, values in (("train", (0, 40, 255)), ("val", (0, 41))):
        for number, value in enumerate(values):
            image = np.full((96, 128, 3), value, dtype=np.uint8)
            image[20:30, 20:30] = 200 + value // 10
            save(Image.fromarray(image), root / f"{split}/images/flat{number}.png")
    assert similar(root) == []


def test_a_set_of_which_all_look_alike_says_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = np.asarray(picture(0)).astype(int)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for number in range(count):
            noise = rng.integers(-3, 4, base.shape)
            save(
                Image.fromarray((base + noise).clip(0, 255).astype(np.uint8)), tmp_path / f"{split}/images/{number}.png"
            )
    assert similar(tmp_path) == []


def test_generated_images_are_like_none() -> None:
    config = resolve(DataConfig(layout="generated"))
    looks = {}
    for split in ("train", "val"):
        dataset = open_dataset(config, split)
        assert isinstance(dataset, GeneratedDataset)
        looks[split] = [look_of(dataset.load(index).image) for index in range(len(dataset))]
    assert alike(looks["val"], looks["train"]) == [None] * len(looks["val"])


def test_against_all_pairs_one_by_one() -> None:
    rng = np.random.default_rng(0)
    training = [rng.integers(-1, 2, 128).astype(np.int8) for _ in range(40)]
    looks = []
    for index in range(300):
        look = training[index % 40].copy()
        changed = rng.permutation(128)[: index % 20]
        look[changed] = 0 if index % 3 == 0 else -look[changed]
        if index % 7 == 0:
            look[:64] = 0  # all that is left agrees, but the other has twice as many differences
        looks.append(look)
    found = alike(looks, training)
    for index, (look, place) in enumerate(zip(looks, found, strict=True)):
        agreeing = [int((look.astype(int) * other).sum()) for other in training]
        signs = [max(np.abs(look).sum(), np.abs(other).sum()) for other in training]
        near = [number for number in range(40) if agreeing[number] >= 0.875 * signs[number]]
        assert place == (index % 40 if near else None)
    assert 30 < sum(place is not None for place in found) < 250
    assert alike([], training) == []
    assert alike(looks[:2], []) == [None, None]


def test_many_large_pngs_are_not_compared_and_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "set", ".png")
    save(CHANGES["smaller"](picture(7)), root / "val/images/03.png")
    assert len(similar(root)) == 1
    monkeypatch.setattr(scan, "MOST_PNG_PIXELS", 96 * 128 * 10)
    assert similar(root) == []
    said = check_dataset(DataConfig(root=str(root))).scan.said
    assert [line for line in said if "compared" in line] == [
        "images are not compared across splits: 21 PNGs would be decoded in full for it"
    ]
