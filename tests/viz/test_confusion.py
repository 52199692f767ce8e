"""The picture of a confusion matrix."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code

from autoseg.errors import ConfigError
from autoseg.viz.heat_maps import draw_confusion
from autoseg.viz.style import save


def test_rows_are_shares_of_the_true_class() -> None:
    confusion = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 999]])
    axes = draw_confusion(confusion, ["road", "car", "sky"]).axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[0.75, 0.25, 0], [np.nan] * 3, [0.001, 0, 0.999]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road", "car", "sky"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["road", "car", "sky"]
    texts = {(text.get_position()): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}  # column, row
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 2.5), (2.5, -0.5))  # the first class is on top


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 19, 150])
def test_any_number_of_classes_fits(classes: int, tmp_path: Path) -> None:
    confusion = np.random.default_rng(0).integers(1, 1000, (classes, classes))
    names = [f"class number {label}" for label in range(classes)]
    figure = draw_confusion(confusion, names)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == classes
    for above, below in pairwise(boxes):
        assert above.y0 >= below.y1 - 0.35 * above.height  # lines of text do not cover each other
    assert (len(axes.texts) > 0) == (classes <= 33)
    (file,) = save(figure, tmp_path / "c.svg")
    assert file.stat().st_size < 500_000
    if classes < 150:
        assert save(draw_confusion(confusion, names), tmp_path / "d.svg")[0].read_bytes() == file.read_bytes()


def test_what_does_not_fit() -> None:
    for confusion in (np.zeros((2, 3)), np.zeros((3, 3))):
        with raises_code(ConfigError, "confusion-shape-invalid", "2 classes", "2x2", list(confusion.shape)):
            draw_confusion(confusion, ["a", "b"])
