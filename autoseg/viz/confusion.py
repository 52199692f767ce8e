"""The picture of a confusion matrix. K: classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from autoseg.errors import ConfigError
from autoseg.viz.style import FAINT, FONT_SIZE, INK, SMALL, colour_bar, figure_of, inch_axes, styled

CELL_SIZES = (0.09, 0.34)
"""Least and greatest side of a cell. All lengths are in inches."""
WIDEST = 9.0
"""Greatest side of the matrix, unless its cells are at their least."""
NUMBERS_FROM = 0.27
"""Least side of a cell that shows its number."""
LETTER = 0.075
"""Width of a letter of a tick label."""


@styled
def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """A confusion matrix (K, K) of pixels with each row as shares of its true class; a class without pixels is blank.

    The diagonal holds the share of each class that is found. With few classes the cells show their shares in percent.
    Raises: ConfigError: a matrix that is not square or has not one name a class.
    """
    count = len(classes)
    if confusion.shape != (count, count) or not count:
        raise ConfigError(
            f"a confusion matrix of {count} classes is {count}x{count}, not {list(confusion.shape)}; name each class",
            code="confusion-shape-invalid",
        )
    totals = confusion.sum(1, keepdims=True).astype(np.float64)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    cell = float(np.clip(WIDEST / count, *CELL_SIZES))
    side, room = cell * count, 0.3 + LETTER * max(map(len, classes))
    axes = inch_axes((0, side, 0, side), (room + 0.2, 0.75, room + 0.2, 0.05))
    picture = axes.imshow(
        np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto",
        extent=(-0.5, count - 0.5, count - 0.5, -0.5),
    )  # fmt: skip
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), facecolor=FAINT)
    size = min(SMALL, 72 * cell)
    axes.set_yticks(range(count), classes, fontsize=size)
    axes.set_xticks(range(count), classes, fontsize=size, rotation=90)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted class", fontsize=FONT_SIZE)
    axes.set_ylabel("true class", fontsize=FONT_SIZE)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), share in np.ndenumerate(shares if cell >= NUMBERS_FROM else shares[:0]):
        if share >= 0.005:
            look: Any = {"ha": "center", "va": "center", "color": "white" if share > 0.6 else INK}
            axes.text(column, row, f"{100 * share:.0f}", fontsize=SMALL - 1, **look)
    place = axes.get_position()
    tall = min(place.height, 2.0 / figure_of(axes).get_figheight())
    return colour_bar(axes, picture, "share of the true class", 0.12, place.y1 - tall, tall, [0, 0.5, 1])
