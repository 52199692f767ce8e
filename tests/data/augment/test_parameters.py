"""The numbers of a random view: what is drawn, and how the place of the crop is chosen."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from autoseg.config.training import AugmentConfig
from autoseg.data.augment.parameters import CoarseMask, View, Window, draw_view, rotation_margins

EVERYTHING = AugmentConfig(colour=0.3, rotate=20, blur=0.5, cutout=0.5, max_class_share=0.6)


def views(settings: AugmentConfig, count: int, mask: CoarseMask | None = None) -> Iterator[View]:
    size = (60, 80) if mask is None else (mask.labels.shape[0] * mask.step, mask.labels.shape[1] * mask.step)
    for seed in range(count):
        yield draw_view(size, (40, 32), settings, torch.Generator().manual_seed(seed), mask)


def place(view: View) -> tuple[float, ...]:
    return view.rows.start, view.rows.stop, view.columns.start, view.columns.stop


def test_a_seed_shows_what_it_always_showed() -> None:
    """Numbers of before there were rotation, blur, cutout and a limit on classes: their draws come after these."""
    view = draw_view((60, 80), (40, 32), AugmentConfig(colour=0.3), torch.Generator().manual_seed(7))
    assert place(view) == pytest.approx((4.363636363636363, 48.0, 40.0, 74.5945945945946), abs=1e-12)
    assert (view.flip, view.jitter) == (
        False,
        pytest.approx((1.2535176204717924, 1.203727225457432, 0.8768272648077302)),
    )
    assert (view.blur, view.angle, view.hole) == (0, 0, (0, 0, 0, 0))


def test_switching_one_change_on_leaves_the_others() -> None:
    mask = CoarseMask(np.zeros((60, 80), dtype=np.uint8), 1)  # one class: no place is within the limit
    for plain, all_of_them in zip(views(AugmentConfig(colour=0.3), 20), views(EVERYTHING, 20), strict=True):
        assert (all_of_them.flip, all_of_them.jitter) == (plain.flip, plain.jitter)
    limited = AugmentConfig(max_class_share=0.5)
    assert [place(view) for view in views(limited, 20, mask)] == [place(view) for view in views(AugmentConfig(), 20)]


def test_how_often_and_how_much() -> None:
    shown = list(views(EVERYTHING, 2000))
    angles = np.degrees([view.angle for view in shown])
    assert (angles.min(), angles.max()) == (pytest.approx(-20, abs=0.2), pytest.approx(20, abs=0.2))
    assert abs(angles.mean()) < 1
    sigmas = np.array([view.blur for view in shown if view.blur])
    assert len(sigmas) == pytest.approx(1000, abs=100)
    assert (sigmas.min(), sigmas.max()) == (pytest.approx(0.1, abs=0.02), pytest.approx(2.0, abs=0.02))
    holes = np.array([view.hole for view in shown if any(view.hole)])
    assert len(holes) == pytest.approx(1000, abs=100)
    heights, widths = holes[:, 1] - holes[:, 0], holes[:, 3] - holes[:, 2]
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (4, 20, 3, 16)
    assert (holes[:, 0].min(), holes[:, 1].max(), holes[:, 2].min(), holes[:, 3].max()) == (0, 40, 0, 32)


@pytest.mark.slow
def test_what_is_drawn_is_independent() -> None:
    """No two of the numbers of a view are correlated: none comes from the draw of another."""
    settings = AugmentConfig(scale=(1.0, 1.0), colour=0.3, rotate=20, blur=0.5, cutout=1.0)
    shown = list(views(settings, 4000))
    limits = np.array([view.hole for view in shown])
    sizes = limits[:, 1::2] - limits[:, ::2]
    free = np.array([40, 32]) - sizes
    columns = {
        "row": [view.rows.start for view in shown],
        "column": [view.columns.start for view in shown],
        "flip": [view.flip for view in shown],
        "brightness": [view.jitter[0] for view in shown],
        "contrast": [view.jitter[1] for view in shown],
        "saturation": [view.jitter[2] for view in shown],
        "angle": [view.angle for view in shown],
        "blurred": [view.blur > 0 for view in shown],
        "hole's height": sizes[:, 0],
        "hole's width": sizes[:, 1],
        "hole's row": limits[:, 0] / free[:, 0],
        "hole's column": limits[:, 2] / free[:, 1],
    }
    found = np.abs(np.corrcoef(np.array(list(columns.values()), dtype=float)) - np.eye(len(columns)))
    assert found.max() < 0.06, [list(columns)[place] for place in np.unravel_index(found.argmax(), found.shape)]
    blurred = [view for view in shown if view.blur]
    strength = np.array([view.blur for view in blurred])
    assert strength.mean() == pytest.approx((0.1 + 2.0) / 2, abs=0.05)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("scaled", [20, 40, 41, 90])
def test_a_margin_shows_what_lies_around_the_same_place(scaled: int, draw: float) -> None:
    plain, wide = (Window(60, scaled, 40, draw, margin) for margin in (0, 7))
    pixels = [
        {round(window.start / window.step) + number: window.offset + number - margin for number in range(window.count)}
        for window, margin in ((plain, 0), (wide, 7))
    ]
    assert pixels[0].items() <= pixels[1].items()
    assert {at for at in pixels[1].values() if 0 <= at < 40} == set(pixels[0].values())
    assert min(pixels[1].values()) >= -7
    assert max(pixels[1].values()) < 47
    assert (min(pixels[1].values()) == -7) or round(wide.start) == 0
    assert (max(pixels[1].values()) == 46) or wide.stop == 60


@pytest.mark.parametrize("degrees", [1, 30, 45, 90, 180])
def test_the_margins_hold_every_turned_crop(degrees: float) -> None:
    crop = (40, 64)
    margins = rotation_margins(crop, degrees)
    for angle in np.radians(np.linspace(0, degrees, 100)):
        reach = [
            (abs(one * math.cos(angle)) + abs(other * math.sin(angle)) - one) / 2 for one, other in (crop, crop[::-1])
        ]
        assert reach[0] <= margins[0] - 0.99
        assert reach[1] <= margins[1] - 0.99
    assert margins[0] <= math.ceil((math.hypot(*crop) - 40) / 2) + 1
    assert rotation_margins(crop, 0) == (0, 0)


# --- the limit on the commonest class ---------------------------------------------------------------------------------


def half_and_half(step: int = 1) -> CoarseMask:
    """Left half class 0, right half a chequer of 1 and 2."""
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[:, 40:] = 1 + np.indices((60, 40)).sum(0) % 2
    return CoarseMask(labels, step)


def share(view: View, mask: CoarseMask) -> float:
    return mask.commonest_share(view.rows, view.columns, 255)


def test_places_are_tried_until_no_class_has_too_much() -> None:
    mask = half_and_half()
    settings = {"scale": (1, 1), "flip": 0}
    free = [share(view, mask) for view in views(AugmentConfig(**settings), 200, mask)]
    kept = [share(view, mask) for view in views(AugmentConfig(**settings, max_class_share=0.6), 200, mask)]
    assert np.mean(np.array(free) > 0.6) > 0.3
    assert np.mean(np.array(kept) > 0.6) < 0.01
    same = [number for number in range(200) if free[number] <= 0.6]
    assert [kept[number] for number in same] == [free[number] for number in same]  # the first place was good enough


def test_where_no_place_is_good_enough_the_best_is_taken() -> None:
    mask = half_and_half()
    limited = [share(view, mask) for view in views(AugmentConfig(scale=(1, 1), max_class_share=0.01), 100, mask)]
    free = [share(view, mask) for view in views(AugmentConfig(scale=(1, 1)), 100, mask)]
    assert min(free) < 0.4  # thirds, where the crop lies right
    assert np.mean(limited) < 0.4 < np.mean(free) - 0.15
    assert all(one <= other for one, other in zip(limited, free, strict=True))


def test_shares_are_those_of_the_labelled_pixels() -> None:
    labels = np.array([[0, 0, 1, 255], [0, 2, 255, 255], [255] * 4, [255] * 4], dtype=np.uint8)
    whole, corner = Window(4, 4, 4, 0.0), Window(4, 4, 2, 0.99)
    assert CoarseMask(labels, 1).commonest_share(whole, whole, 255) == 3 / 5
    assert CoarseMask(labels, 1).commonest_share(Window(4, 4, 2, 0.0), corner, 255) == 1
    assert CoarseMask(labels, 1).commonest_share(corner, whole, 255) == 1  # nothing to learn from is no better
    assert CoarseMask(labels, 1).commonest_share(whole, whole, 0) == 11 / 13


def test_a_coarse_mask_has_enough_points() -> None:
    assert [CoarseMask.step_of(*size) for size in ((96, 96), (255, 4000), (256, 300), (1024, 2048))] == [1, 1, 2, 8]
    fine = half_and_half()
    coarse = CoarseMask(fine.labels.repeat(4, 0).repeat(4, 1)[::4, ::4], 4)
    window = Window(240, 240, 100, 0.5), Window(320, 320, 100, 0.5)
    expected = np.bincount(fine.labels[17:43, 27:53].ravel()).max() / 26**2
    assert coarse.commonest_share(*window, 255) == pytest.approx(expected, abs=0.03)
