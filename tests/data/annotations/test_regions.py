"""Polygons, ellipses, bitmaps and runs become the pixels that a slow, direct test of each pixel's centre gives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.annotations.regions import (
    Bitmap,
    Drawing,
    Points,
    Region,
    area,
    box,
    by_area,
    ellipse,
    filled,
    paint,
    ring,
    runs,
    turned,
)
from autoseg.errors import DataError

SOURCE = Path("a.json")


def crossings(x: float, y: float, corners: Points) -> int:
    """How many edges a ray to the right crosses, one edge and one pixel at a time."""
    count = 0
    for (x0, y0), (x1, y1) in zip(corners.tolist(), [*corners.tolist()[1:], corners.tolist()[0]], strict=True):
        if (y0 <= y < y1 or y1 <= y < y0) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            count += 1
    return count


def inside(rings: list[Points], size: tuple[int, int]) -> np.ndarray:
    found = np.zeros(size, dtype=bool)
    for row in range(size[0]):
        for column in range(size[1]):
            found[row, column] = sum(crossings(column + 0.5, row + 0.5, corners) for corners in rings) % 2
    return found


@pytest.mark.parametrize("seed", range(20))
def test_polygons_with_holes_by_the_centres_of_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = (int(random.integers(1, 30)), int(random.integers(1, 30)))
    rings = [random.uniform(-3, 33, (int(random.integers(3, 9)), 2)) for _ in range(int(random.integers(1, 4)))]
    assert np.array_equal(filled(rings, size), inside(rings, size))


def test_corners_on_whole_pixels_take_each_pixel_once() -> None:
    left, right = box(0, 0, 3, 4), box(3, 0, 7, 4)
    both = filled([left], (4, 7)).astype(int) + filled([right], (4, 7))
    assert (both == 1).all()


def test_a_frame_has_a_hole_and_two_parts_are_a_union() -> None:
    frame = Region("frame", ((box(0, 0, 6, 6), box(2, 2, 4, 4)),))
    mask = paint(Drawing((6, 6), [frame]), (6, 6), {"frame": 7}, SOURCE)
    assert (mask == 7).sum() == 32
    assert (mask[2:4, 2:4] == 0).all()
    parts = Region("parts", ((box(0, 0, 4, 4),), (box(2, 2, 6, 6),)))  # they overlap, and are no holes of each other
    assert (paint(Drawing((6, 6), [parts]), (6, 6), {"parts": 1}, SOURCE) == 1).sum() == 28


def test_later_regions_cover_earlier_ones_and_smaller_ones_larger_ones() -> None:
    small, large = Region("small", ((box(1, 1, 2, 2),),)), Region("large", ((box(0, 0, 4, 4),),))
    labels = {"small": 1, "large": 2}
    assert paint(Drawing((4, 4), [small, large]), (4, 4), labels, SOURCE)[1, 1] == 2
    assert paint(Drawing((4, 4), by_area([small, large])), (4, 4), labels, SOURCE)[1, 1] == 1
    assert area(Region("ring", ((box(0, 0, 4, 4), box(1, 1, 2, 2)),), Bitmap(0, 0, np.ones((2, 3), bool)))) == 15 + 6


def test_an_ellipse_is_round_and_turns_clockwise() -> None:
    mask = filled([ellipse(50, 40, 30, 20)], (80, 100))
    rows, columns = np.mgrid[:80, :100] + 0.5
    exact = ((columns - 50) / 30) ** 2 + ((rows - 40) / 20) ** 2 <= 1
    assert (mask != exact).sum() <= 20  # of 200 pixels at the edge
    assert mask.sum() == pytest.approx(math.pi * 600, rel=0.01)
    right = turned(np.array([[1.0, 0.0]]), (0, 0), 90)
    assert right == pytest.approx(np.array([[0.0, 1.0]]))  # y is down: a quarter clockwise from right is down


def test_runs_by_row_and_by_column() -> None:
    assert runs([1, 2, 3], (2, 3), SOURCE).tolist() == [[False, True, True], [False, False, False]]
    assert runs([1, 2, 3], (2, 3), SOURCE, by_column=True).tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("counts", [[5], [3, 4], [-1, 7]])
def test_runs_of_another_size(counts: list[int]) -> None:
    with pytest.raises(DataError, match=r"a\.json has run lengths of . pixels for 3x2") as error:
        runs(counts, (2, 3), SOURCE)
    assert error.value.code == "runs-of-another-size"


@pytest.mark.parametrize(
    ("points", "code"),
    [
        ([[0, 0], [1, 1]], "polygon-too-short"),
        ([[0, 0, 0]] * 3, "annotation-invalid"),
        ([["a", 0]] * 3, "annotation-invalid"),
        ([[0, float("nan")]] * 3, "annotation-invalid"),
        (None, "annotation-invalid"),
        ([[0, 0], [1]], "annotation-invalid"),
    ],
)
def test_rings_that_are_none(points: object, code: str) -> None:
    with pytest.raises(DataError, match=r"^a\.json has a polygon") as error:
        ring(points, SOURCE)
    assert error.value.code == code


@pytest.mark.parametrize("corners", [box(20, 0, 25, 5), box(-4, 0, 5, 5), box(0, 0, 5, 60)])
def test_polygons_outside_the_image(corners: Points) -> None:
    with pytest.raises(DataError, match=r"a\.json has a polygon that reaches .* outside its image of 10x10") as error:
        paint(Drawing(None, [Region("a", ((corners,),))]), (10, 10), {"a": 1}, SOURCE)
    assert error.value.code == "polygon-outside"


def test_corners_outside_by_rounding_are_cut_off() -> None:
    mask = paint(Drawing(None, [Region("a", ((box(-0.6, -1, 10.4, 11),),))]), (10, 10), {"a": 1}, SOURCE)
    assert (mask == 1).all()


def test_bitmaps_outside_the_image_and_unknown_classes() -> None:
    bitmap = Bitmap(8, 0, np.ones((3, 3), bool))
    with pytest.raises(DataError, match="mask of 3x3 at \\(0, 8\\), outside") as error:
        paint(Drawing(None, [Region("a", bitmap=bitmap)]), (10, 10), {"a": 1}, SOURCE)
    assert error.value.code == "polygon-outside"
    with pytest.raises(DataError, match="class 'b', which is none") as error:
        paint(Drawing(None, [Region("b", ((box(0, 0, 2, 2),),))]), (10, 10), {"a": 1}, SOURCE)
    assert error.value.code == "unknown-class"
