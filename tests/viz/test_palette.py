"""Colours of classes and label maps as pictures."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.errors import ConfigError, DataError
from autoseg.viz.palette import colour, overlay, palette


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 8, 19, 21, 150, 256, 300, 5000])
def test_all_colours_differ_and_none_is_black_or_white(count: int) -> None:
    colours = palette(count)
    assert colours.shape == (count, 3)
    assert colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == count
    assert not (colours == 0).all(-1).any()
    assert not (colours == 255).all(-1).any()
    assert (palette(count) == colours).all()


def test_a_longer_palette_begins_with_the_shorter() -> None:
    longest = palette(400)
    for count in (1, 7, 9, 40, 256, 257):
        assert (palette(count) == longest[:count]).all()


def test_the_first_twenty_are_well_separated() -> None:
    colours = palette(20).astype(float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 60


@pytest.mark.parametrize("count", [0, -1, 70000])
def test_impossible_palettes(count: int) -> None:
    with raises_code(ConfigError, "palette-size-out-of-range", "1 to 65536", f"not {count}"):
        palette(count)


def test_colour_looks_up_every_label() -> None:
    colours = palette(5)
    mask = np.array([[0, 1, 2], [3, 4, 255]], dtype=np.uint8)
    picture = colour(mask, colours, 255)
    assert picture.shape == (2, 3, 3)
    assert picture.dtype == np.uint8
    assert (picture.reshape(-1, 3)[:5] == colours).all()
    assert (picture[1, 2] == 0).all()


def test_the_ignore_label_may_be_a_class_number() -> None:
    picture = colour(np.array([[0, 1]]), palette(2), 0)
    assert picture.tolist() == [[[0, 0, 0], palette(2)[1].tolist()]]


@pytest.mark.parametrize("label", [5, -1, 255])
def test_a_label_without_a_colour_is_an_error(label: int) -> None:
    with raises_code(DataError, "label-out-of-range", f"label {label} ", "5 classes", "0..4"):
        colour(np.array([[0, label]]), palette(5), None)


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 3), dtype=int), np.zeros((2, 2))])
def test_a_mask_that_is_no_label_map(mask: np.ndarray) -> None:
    with raises_code(DataError, "mask-not-label-map", mask.dtype, list(mask.shape)):
        colour(mask, palette(2))


def test_overlay_mixes_and_leaves_ignored_pixels() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (6, 9, 3)).astype(np.uint8)
    mask = rng.integers(0, 3, (6, 9))
    mask[0] = 255
    colours = palette(3)
    mixed = overlay(image, mask, colours, 0.5, 255)
    assert mixed.shape == image.shape
    assert mixed.dtype == np.uint8
    assert (mixed[0] == image[0]).all()
    expected = (image[1:].astype(float) + colours[mask[1:]]) / 2
    assert np.abs(mixed[1:] - expected).max() <= 0.5
    assert (overlay(image, mask, colours, ignore_label=255) == mixed).all()  # half of each by default
    assert (overlay(image, mask, colours, 0.0, 255) == image).all()
    assert (overlay(image, mask, colours, 1.0, 255)[1:] == colours[mask[1:]]).all()


def test_overlay_refuses_what_does_not_fit() -> None:
    image, mask = np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 5), dtype=int)
    with raises_code(DataError, "overlay-input-invalid", "[4, 4, 3]", "[4, 5]"):
        overlay(image, mask, palette(2))
    with raises_code(DataError, "overlay-input-invalid", "uint8", "float64"):
        overlay(image.astype(float), mask[:, :4], palette(2))
    with raises_code(ConfigError, "opacity-out-of-range", "opacity", "1.5"):
        overlay(image, mask[:, :4], palette(2), 1.5)
