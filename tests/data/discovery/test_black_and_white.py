"""Masks of two classes in black and white: JPEGs, blurred edges, GIFs; and tables of colours beside the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig
from autoseg.data.check.report import check_dataset
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
from autoseg.data.decide import is_black_and_white
from autoseg.data.io.colour_tables import table_beside
from autoseg.data.io.masks import look_at_mask, read_mask
from autoseg.data.wording import counted
from autoseg.errors import ConfigError, DataError

SIZE = (56, 72)


def discs(seed: int, labels: int = 2) -> np.ndarray:
    """Labels 0 to `labels` - 1, each but 0 a disc or more."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = np.zeros(SIZE, dtype=np.uint8)
    for label in list(range(1, labels)) * 2:
        row, column, radius = generator.integers(10, 50), generator.integers(10, 60), generator.integers(7, 13)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = label
    return mask


def save(array: np.ndarray, path: Path, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)
    return path


def blurred(mask: np.ndarray) -> np.ndarray:
    """As a mask that was enlarged and made small again."""
    large = Image.fromarray(mask).resize((2 * SIZE[1], 2 * SIZE[0]))
    return np.asarray(large.resize(SIZE[::-1], Image.Resampling.BICUBIC))


def write_set(root: Path, masks: list[np.ndarray], name: str, **settings: Any) -> list[Path]:
    for number in range(len(masks)):
        photo = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        save(photo, root / f"images/{number}.png")
    return [save(mask, root / "masks" / name.format(number), **settings) for number, mask in enumerate(masks)]


def config(root: Path, **settings: object) -> DataConfig:
    return parse(DataConfig, settings | {"root": str(root)})


def are_black_and_white(paths: list[Path]) -> bool:
    return is_black_and_white([look_at_mask(path) for path in paths])


def in_rgb(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[:, :, None], 3, axis=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change", "settings"), [
    ("{}.jpg", lambda mask: mask, {"quality": 75}),
    ("{}.jpg", in_rgb, {"quality": 40}),
    ("{}.jpg", lambda mask: mask, {"quality": 95}),
    ("{}.png", blurred, {}),
    ("{}.tif", blurred, {}),
])  # fmt: skip
def test_black_and_white_masks_are_cut_at_the_middle(
    name: str, change: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    masks = [discs(seed) for seed in range(6)]
    write_set(tmp_path, [change(mask * np.uint8(255)) for mask in masks], name, **settings)
    resolved = resolve(config(tmp_path))
    assert (resolved.mask_threshold, resolved.classes) == (128, ("background", "foreground"))
    assert "128 or more is class 1" in describe_dataset(resolved)
    dataset = open_dataset(resolved, "train")
    for index, own in enumerate(dataset.names):
        read = dataset.load(index).mask
        assert set(np.unique(read)) == {0, 1}
        assert (read != masks[int(own)]).mean() < 0.01
    report = check_dataset(config(tmp_path))
    assert (report.stopping, report.proposal["mask_threshold"]) == (0, 128)
    assert resolve(parse(DataConfig, dict(report.proposal))).mask_threshold == 128


@pytest.mark.parametrize(("name", "labels"), [
    ("{}.jpg", [0, 1, 2, 3, 4]),
    ("{}.jpg", [0, 1, 2, 3, 255]),
    ("{}.jpg", [0, 90, 255]),
    ("{}.png", [0, 1, 2, 255]),
    ("{}.png", [0, 255]),
])  # fmt: skip
def test_masks_of_labels_are_not_cut(name: str, labels: list[int], tmp_path: Path) -> None:
    masks = [np.array(labels, dtype=np.uint8)[discs(seed, len(labels))] for seed in range(6)]
    assert not are_black_and_white(write_set(tmp_path, masks, name))
    if name == "{}.jpg":
        with raises_code(DataError, "mask-compression-lossy", tmp_path / "masks", "PNG", "data.mask_threshold"):
            resolve(config(tmp_path))
    else:
        assert resolve(config(tmp_path)).mask_threshold is None


def test_photos_are_not_black_and_white(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    page = np.full(SIZE, 255, dtype=np.uint8)
    page[::3] = noise[::3]
    assert not are_black_and_white([save(noise, tmp_path / "a.png"), save(page, tmp_path / "b.jpg")])
    assert not are_black_and_white([save(page, tmp_path / "c.png")])
    assert not is_black_and_white([])


def test_a_threshold_that_is_set(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(SIZE[1], dtype=np.uint8) * 3, (SIZE[0], 1))
    write_set(tmp_path, [ramp] * 4, "{}.png")
    np.save(tmp_path / "masks/0.npy", ramp)
    (tmp_path / "masks/0.png").unlink()
    for split in ("train", "val"):
        dataset = open_dataset(resolve(config(tmp_path, mask_threshold=60)), split)
        for index in range(len(dataset)):
            assert np.array_equal(dataset.load(index).mask, ramp >= 60)
    with raises_code(ConfigError, "setting-invalid", "mask_threshold", "1", "not 0"):
        config(tmp_path, mask_threshold=0)


def test_255_is_the_second_of_two_classes_that_are_named(tmp_path: Path) -> None:
    write_set(tmp_path, [discs(seed) * np.uint8(255) for seed in range(6)], "{}.png")
    for settings in ({"classes": ["background", "polyp"]}, {"num_classes": 2}):
        resolved = resolve(config(tmp_path, **settings))
        assert resolved.label_map == {255: 1}
        assert set(np.unique(open_dataset(resolved, "train").load(0).mask)) == {0, 1}
        assert resolve(resolved) == resolved
        report = check_dataset(config(tmp_path, **settings))
        assert (report.proposal["label_map"], report.summary["train"].ignored) == ({255: 1}, 0)
    assert resolve(config(tmp_path, num_classes=2, ignore_label=255)).label_map is None


def test_a_gif_in_grey_is_read_by_its_colours(tmp_path: Path) -> None:
    """The palette of a GIF is its writer's: a white mask has the index 0."""
    white = Image.new("P", SIZE[::-1])
    white.putpalette([255, 255, 255, 0, 0, 0])
    white.save(tmp_path / "white.gif")
    assert (read_mask(tmp_path / "white.gif") == 255).all()
    mask = discs(0)
    assert np.array_equal(read_mask(save(mask * np.uint8(255), tmp_path / "mask.gif")), mask * 255)
    in_colour = Image.fromarray(mask)
    in_colour.putpalette([0, 0, 0, 128, 64, 0])
    in_colour.save(tmp_path / "colour.gif")
    assert len(np.unique(read_mask(tmp_path / "colour.gif"))) == 2


@pytest.mark.parametrize(("name", "text"), [
    ("class_dict_seg.csv", "name, r, g, b\nroad, 1, 2, 3\ncar, 4, 5, 6\n"),
    ("label_class_dict.csv", "name,r,g,b\nroad,1,2,3\ncar,4,5,6\n"),
    ("annotation-colormap.txt", "0 road 1 2 3\n1 car 4 5 6\n"),
    ("labels.csv", "id,name,r,g,b\n0,road,1,2,3\n1,car,4,5,6\n"),
])  # fmt: skip
def test_tables_of_colours_by_other_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "train_labels.csv").write_text("ImageId,EncodedPixels\na,1 2 3 4\n")
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    assert table_beside(tmp_path) is None
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / name).write_text(text)
    assert table_beside(tmp_path, tmp_path / "masks") == {"road": (1, 2, 3), "car": (4, 5, 6)}


def test_a_table_in_the_folder_above(tmp_path: Path) -> None:
    colours = np.array([[9, 8, 7], [1, 200, 3]], dtype=np.uint8)
    write_set(tmp_path / "set", [colours[discs(seed)] for seed in range(4)], "{}.bmp")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsea,9,8,7\nfish,1,200,3\n")
    assert resolve(config(tmp_path / "set")).classes == ("sea", "fish")
    assert check_dataset(config(tmp_path / "set")).stopping == 0


def test_counted() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 2975)] == [
        "0 images",
        "1 image",
        "2 images",
        "2,975 images",
    ]
    assert [counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]
