"""The contact sheet of a data set: what is in it, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code
from matplotlib.figure import Figure

from autoseg.errors import DataError
from autoseg.viz.palette import as_picture, palette
from autoseg.viz.samples import draw_contact_sheet
from autoseg.viz.style import save

CLASSES = ("road", "tree", "sky", "car")


def sheet(sizes: list[tuple[int, int]], names: list[str] | None = None) -> Figure:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    masks = [np.where(rng.random(size) < 0.1, 255, 2 * rng.integers(0, 2, size)) for size in sizes]
    names = names or [f"train/{number}" for number in range(len(sizes))]
    return draw_contact_sheet(images, masks, names, palette(len(CLASSES)), CLASSES, 255)


def boxes(figure: Figure) -> np.ndarray:
    """Left, bottom, width and height of every picture, in inches."""
    return np.array([axes.get_position().bounds for axes in figure.axes]) * np.tile(figure.get_size_inches(), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "columns"), [((48, 64), 3), ((100, 50), 3), ((32, 64), 4)])
def test_samples_are_in_a_grid_and_overlap_nowhere(size: tuple[int, int], columns: int) -> None:
    figure = sheet([size] * 12)
    found = boxes(figure)
    assert len(found) == 24
    lefts, bottoms = found[::2, 0].round(6), found[::2, 1].round(6)
    assert (len(set(lefts)), len(set(bottoms))) == (columns, 12 // columns)
    assert np.allclose(found[:, 2] / found[:, 3], size[1] / size[0], rtol=1e-6)
    right, top = found[:, 0] + found[:, 2], found[:, 1] + found[:, 3]
    width, height = figure.get_size_inches()
    assert found[:, :2].min() > 0
    assert right.max() < width
    assert top.max() < height
    for one in range(24):
        for other in range(one):
            beside = right[one] <= found[other, 0] + 1e-9 or right[other] <= found[one, 0] + 1e-9
            above = top[one] <= found[other, 1] + 1e-9 or top[other] <= found[one, 1] + 1e-9
            assert beside or above, (one, other)


def test_mixed_sizes_keep_their_shape() -> None:
    found = boxes(sheet([(40, 60), (60, 40), (20, 200), (300, 600)]))
    assert np.allclose((found[:, 2] / found[:, 3])[::2], [1.5, 2 / 3, 10, 2], rtol=1e-6)


def test_names_and_the_classes_that_appear() -> None:
    figure = sheet([(40, 60)] * 2, ["train/a", "val/" + "b" * 80 + "_end"])
    first, second = (axes.get_title("left") for axes in figure.axes[::2])
    assert first == "train/a"
    assert second.startswith("val/bb")
    assert "…" in second
    assert second.endswith("_end")
    assert len(second) < 50
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road", "sky", "ignored"]


def test_masks_have_the_colours_of_the_palette() -> None:
    mask = np.array([[0, 3], [255, 1]])
    figure = draw_contact_sheet([np.zeros((2, 2, 3), np.uint8)], [mask], ["a"], palette(4), CLASSES, 255)
    shown = np.asarray(figure.axes[1].images[0].get_array())
    colours = palette(4)
    assert shown.tolist() == [[colours[0].tolist(), colours[3].tolist()], [[0, 0, 0], colours[1].tolist()]]


def test_thin_things_stay_visible_in_large_masks() -> None:
    mask = np.zeros((1500, 2000), np.uint8)
    mask[:, 1001:1003] = 1
    figure = draw_contact_sheet([np.zeros((*mask.shape, 3), np.uint8)], [mask], ["a"], palette(4), CLASSES, None)
    shown = np.asarray(figure.axes[1].images[0].get_array())
    assert shown.shape[1] < 500
    assert (shown != palette(4)[0]).any(-1).any(0).sum() >= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_other_images_become_pictures(channels: int) -> None:
    values = np.random.default_rng(0).normal(50, 3, (20, 30, channels))
    for dtype in (np.float32, np.uint16):
        picture = as_picture(values.astype(dtype))
        assert picture.dtype == np.uint8
        assert picture.shape == (20, 30, 3)
        assert (picture.min(), picture.max()) == (0, 255)
        assert np.array_equal(picture[..., 0], picture[..., 2]) == (channels < 3)
    flat = np.full((4, 4, channels), 7, np.uint16)
    assert as_picture(flat).max() == 0
    assert np.array_equal(as_picture(np.full((4, 4, 3), 9, np.uint8)), np.full((4, 4, 3), 9))


def test_what_does_not_fit_is_refused() -> None:
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    with raises_code(DataError, "sample-counts-differ", "0 images"):
        draw_contact_sheet([], [], [], palette(4), CLASSES, 255)
    with raises_code(DataError, "mask-size-differs", "a: ", "[4, 4, 3]", "[3, 4]"):
        draw_contact_sheet([image], [mask[:3]], ["a"], palette(4), CLASSES, 255)
    with raises_code(DataError, "label-out-of-range", "label 4 ", "4 classes"):
        draw_contact_sheet([image], [mask + 4], ["a"], palette(4), CLASSES, 255)


def test_a_sheet_is_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(sheet([(40, 60)] * 3), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
